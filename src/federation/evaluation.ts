// SPDX-License-Identifier: Apache-2.0
/** Scores of one version of the model: each worker sums over its share of the held-out data, the server adds up. */
import { Deferred } from './deferred.ts'
import { addSums, clickScores, type Sums } from './metrics.ts'
import type { Snapshot } from './model-state.ts'

export type Scores = Readonly<Record<string, number>>

export class Evaluation {
  readonly snapshot: Snapshot
  readonly #awaited: Set<number>
  readonly #sums = new Map<number, Sums>()
  readonly #done = new Deferred<void>()

  /** Takes over the snapshot and releases it at the end. */
  constructor(snapshot: Snapshot, workers: Iterable<number>) {
    this.snapshot = snapshot
    this.#awaited = new Set(workers)
    this.#endIfComplete()
  }

  /** Resolves when every awaited worker has reported or is gone. */
  get done(): Promise<void> {
    return this.#done.promise
  }

  get awaited(): ReadonlySet<number> {
    return this.#awaited
  }

  add(worker: number, sums: Sums): void {
    if (!this.#awaited.delete(worker)) return
    this.#sums.set(worker, sums)
    this.#endIfComplete()
  }

  /** The worker is gone, or was too slow. */
  drop(worker: number): void {
    if (this.#awaited.delete(worker)) this.#endIfComplete()
  }

  /** Over all workers that reported, added in the order of their indices. */
  sums(): Sums {
    return addSums([...this.#sums].sort(([a], [b]) => a - b).map(([, sums]) => sums))
  }

  #endIfComplete(): void {
    if (this.#awaited.size > 0) return
    this.snapshot.release()
    this.#done.resolve()
  }
}

export interface Scored {
  readonly examples: number
  readonly scores: Scores
}

/**
 * Click scores where the sums are of that kind; else means: `count` divides all others, `correct` becomes `accuracy`,
 * `<name>Sum` becomes `<name>`. Empty when nothing was counted.
 */
export function scoresOf(sums: Sums): Scored {
  const examples = typeof sums.count === 'number' ? sums.count : 0
  if (!(examples > 0)) return { examples: 0, scores: {} }
  const clicks = clickScores(sums)
  if (clicks !== undefined) return { examples, scores: { ...clicks } }
  const scores = Object.entries(sums)
    .filter((entry): entry is [string, number] => typeof entry[1] === 'number' && entry[0] !== 'count')
    .map(([name, sum]) => [name === 'correct' ? 'accuracy' : name.replace(/Sum$/, ''), sum / examples])
  return { examples, scores: Object.fromEntries(scores) }
}
