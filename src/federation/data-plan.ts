// SPDX-License-Identifier: Apache-2.0
/**
 * Which batch each worker computes next. A batch is (data shard, position); a shard's batches are handed out in order. When a
 * worker comes back or its shard moves, what is not done with is handed out again, so that a worker that is replaced, a server
 * that is resumed and a shard that is moved all go on where the model is; what was in hands before counts no more. Each worker
 * begins with the shard of its own number.
 */
import assert from 'node:assert/strict'
import type { Task } from './protocol/remote-worker.ts'

/** A batch in a worker's hands. */
export interface Lease extends Task {
  /** Of its shard: how often that was handed out again. */
  readonly term: number
}

interface Shard {
  owner: number
  term: number
  /** Batches below it are done with: in the model, or dropped. */
  settled: number
  /** Batches below it were handed out. */
  handed: number
}

export class DataPlan {
  readonly #shards: Shard[]

  /** `positions`: of each shard, as saved. */
  constructor(workers: number, positions: readonly number[] = []) {
    this.#shards = Array.from({ length: workers }, (_, owner) => {
      const settled = positions[owner] ?? 0
      return { owner, term: 0, settled, handed: settled }
    })
  }

  /** Where each shard goes on after everything that is done with. */
  get positions(): readonly number[] {
    return this.#shards.map(({ settled }) => settled)
  }

  /** Of a worker's shards the one that is furthest behind. */
  next(worker: number): Lease {
    let chosen: number | undefined
    for (const [index, { owner, handed }] of this.#shards.entries()) {
      if (owner !== worker) continue
      if (chosen === undefined || handed < this.#shards[chosen]!.handed) chosen = index
    }
    assert(chosen !== undefined, `worker ${worker} has no shard`)
    const { term, handed: position } = this.#shards[chosen]!
    this.#shards[chosen]!.handed++
    return { shard: chosen, position, term }
  }

  /** Whether it is in hands still, and has not been handed out again. */
  isCurrent({ shard, term }: Lease): boolean {
    return this.#shards[shard]!.term === term
  }

  /** The batch is done with; only a current lease may say so. */
  settle(lease: Lease): void {
    assert(this.isCurrent(lease), `shard ${lease.shard} was handed out again`)
    const it = this.#shards[lease.shard]!
    it.settled = Math.max(it.settled, lease.position + 1)
  }

  /** It begins anew with what is not done with. Its own shard is its own again; others that it was given stay. */
  join(worker: number): void {
    this.#shards[worker]!.owner = worker
    for (const shard of this.#shards) if (shard.owner === worker) handOutAgain(shard)
  }

  /** Shards of `worker` go to the one of `others` that has fewest; what moved where. */
  move(worker: number, others: Iterable<number>): { readonly shard: number; readonly to: number }[] {
    const candidates = [...others].filter((other) => other !== worker)
    if (candidates.length === 0) return []
    const moved: { shard: number; to: number }[] = []
    for (const [index, shard] of this.#shards.entries()) {
      if (shard.owner !== worker) continue
      const to = candidates.reduce((best, other) => (this.#count(other) < this.#count(best) ? other : best))
      shard.owner = to
      handOutAgain(shard)
      moved.push({ shard: index, to })
    }
    return moved
  }

  #count(worker: number): number {
    return this.#shards.filter(({ owner }) => owner === worker).length
  }
}

function handOutAgain(shard: Shard): void {
  shard.term++
  shard.handed = shard.settled
}
