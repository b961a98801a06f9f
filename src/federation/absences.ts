// SPDX-License-Identifier: Apache-2.0
/** Who is away: a round does not wait for them, and after a while their data shards go to others. */
import type { EventSink } from '../observability/events.ts'
import type { Clock } from './clock.ts'
import type { DataPlan } from './data-plan.ts'

export interface AbsencesOptions {
  readonly plan: DataPlan
  readonly workers: number
  /** Workers in training. */
  readonly present: () => Iterable<number>
  /** Never when absent. */
  readonly moveShardsAfterMs: number | undefined
  /** Runs what changes the plan, between two updates. */
  readonly replan: (change: () => void) => void
  readonly clock: Clock
  readonly events: EventSink
}

export class Absences {
  readonly #options: AbsencesOptions
  /** Were in training and are not any more; those of them that have been away for too long. */
  readonly #lost = new Set<number>()
  readonly #overdue = new Set<number>()
  /** Of each lost worker, which of its absences this is. */
  readonly #absences = new Map<number, symbol>()
  #over = false

  constructor(options: AbsencesOptions) {
    this.#options = options
  }

  /** Workers that may still push: present, or not yet there. */
  get expected(): ReadonlySet<number> {
    const everyone = Array.from({ length: this.#options.workers }, (_, worker) => worker)
    return new Set(everyone.filter((worker) => !this.#lost.has(worker)))
  }

  came(worker: number): void {
    const { plan, replan } = this.#options
    this.#lost.delete(worker)
    this.#overdue.delete(worker)
    this.#absences.delete(worker)
    replan(() => {
      plan.join(worker)
      this.#moveShards()
    })
  }

  went(worker: number): void {
    const { clock, moveShardsAfterMs, replan } = this.#options
    this.#lost.add(worker)
    if (moveShardsAfterMs === undefined) return
    const absence = Symbol('absence')
    this.#absences.set(worker, absence)
    clock.after(moveShardsAfterMs, () => {
      // It may have come and gone again meanwhile: then another absence is waited out.
      if (this.#absences.get(worker) !== absence) return
      this.#overdue.add(worker)
      replan(() => this.#moveShards())
    })
  }

  /** No shards move any more. */
  end(): void {
    this.#over = true
  }

  /** Of workers that have been away for too long, to those that are there; also when the first of these comes. */
  #moveShards(): void {
    const { events, plan, present } = this.#options
    if (this.#over) return
    for (const from of this.#overdue) {
      for (const { shard, to } of plan.move(from, present())) events({ kind: 'reassigned', shard, from, to })
    }
  }
}
