// SPDX-License-Identifier: Apache-2.0
/** What a run amounts to, over all its epochs: examples, time, who took part with which plan. */
import type { Progress } from './saved-state.ts'
import type { WorkerSummary } from './server-options.ts'

export class RunRecord {
  readonly #roster: Map<number, WorkerSummary>
  readonly #secondsBefore: number
  /** The first worker's; the server sees no data and cannot make a plan of its own. */
  #planDigest: Uint8Array | undefined
  #examples: number
  /** Training begins with the first assignment and ends with the last update: neither waiting for workers nor the final scores count. */
  #trainingSince: number | undefined
  /** Without an update no time has passed. */
  #lastUpdateAt: number | undefined

  constructor(saved: Progress | undefined) {
    this.#roster = new Map(saved?.workers.map((worker) => [worker.worker, worker]))
    this.#secondsBefore = saved?.seconds ?? 0
    this.#planDigest = saved?.planDigest
    this.#examples = saved?.examples ?? 0
  }

  joined(worker: WorkerSummary, planDigest: Uint8Array): void {
    this.#roster.set(worker.worker, worker)
    this.#planDigest ??= planDigest
  }

  assigned(now: number): void {
    this.#trainingSince ??= now
  }

  updated(now: number, examples: number): void {
    this.#lastUpdateAt = now
    this.#examples += examples
  }

  get planDigest(): Uint8Array | undefined {
    return this.#planDigest
  }

  /** In applied updates. */
  get examples(): number {
    return this.#examples
  }

  get seconds(): number {
    if (this.#lastUpdateAt === undefined) return this.#secondsBefore
    return this.#secondsBefore + (this.#lastUpdateAt - this.#trainingSince!) / 1000
  }

  /** By index. */
  get workers(): readonly WorkerSummary[] {
    return [...this.#roster.values()].sort((a, b) => a.worker - b.worker)
  }
}
