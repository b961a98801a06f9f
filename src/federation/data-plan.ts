// SPDX-License-Identifier: Apache-2.0
/**
 * Which batch each worker computes next. A batch is (data shard, position); a shard's batches are handed out in order, and
 * those of a worker that went away are handed out again, so that a worker that is replaced, a server that is resumed and a
 * shard that is moved all go on where the model is. Each worker begins with the shard of its own number.
 */
import assert from 'node:assert/strict'
import type { Task } from './protocol/remote-worker.ts'

interface Shard {
  owner: number
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
      return { owner, settled, handed: settled }
    })
  }

  /** Where each shard goes on after everything that is done with. */
  get positions(): readonly number[] {
    return this.#shards.map(({ settled }) => settled)
  }

  /** Of a worker's shards the one that is furthest behind. */
  next(worker: number): Task {
    let chosen: number | undefined
    for (const [index, { owner, handed }] of this.#shards.entries()) {
      if (owner !== worker) continue
      if (chosen === undefined || handed < this.#shards[chosen]!.handed) chosen = index
    }
    assert(chosen !== undefined, `worker ${worker} has no shard`)
    return { shard: chosen, position: this.#shards[chosen]!.handed++ }
  }

  settle({ shard, position }: Task): void {
    const it = this.#shards[shard]!
    it.settled = Math.max(it.settled, position + 1)
    it.handed = Math.max(it.handed, it.settled)
  }

  /** The worker went away: what it had in hand is handed out again. */
  leave(worker: number): void {
    for (const shard of this.#shards) if (shard.owner === worker) shard.handed = shard.settled
  }

  /** Its own shard is its own again; others that it was given stay. */
  join(worker: number): void {
    this.#shards[worker]!.owner = worker
    this.leave(worker)
  }

  /** Shards of `worker` go to the one of `others` that has fewest; what moved where. */
  move(worker: number, others: Iterable<number>): { readonly shard: number; readonly to: number }[] {
    const candidates = [...others].filter((other) => other !== worker)
    if (candidates.length === 0) return []
    this.leave(worker)
    const moved: { shard: number; to: number }[] = []
    for (const [index, shard] of this.#shards.entries()) {
      if (shard.owner !== worker) continue
      const to = candidates.reduce((best, other) => (this.#count(other) < this.#count(best) ? other : best))
      shard.owner = to
      moved.push({ shard: index, to })
    }
    return moved
  }

  #count(worker: number): number {
    return this.#shards.filter(({ owner }) => owner === worker).length
  }
}
