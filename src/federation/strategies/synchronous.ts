// SPDX-License-Identifier: Apache-2.0
/**
 * Synchronous SGD: a round gathers pushes that were computed with the same parameters and applies them as one update.
 *
 * A round closes as soon as one of these holds, and never with fewer than `minimumWorkers` pushes:
 *   1. `take` workers have pushed (all of the job's workers, or N of M);
 *   2. every worker that may still push has pushed: a lost worker is not waited for, one that has not joined yet is;
 *   3. `deadlineMs` have passed since the round's first push; where nothing is said, ten times as long as rounds usually take.
 * What comes after its round has closed is dropped, and its worker goes on with the new parameters.
 */
import assert from 'node:assert/strict'
import { FederationError } from '../federation-error.ts'
import { type Contribution, type Decision, pushReplaced, type Situation, type Strategy, wait } from './strategy.ts'

export interface SynchronousOptions {
  readonly take: number
  readonly minimumWorkers: number
  /** Derived from the rounds so far when absent. */
  readonly deadlineMs?: number
}

export function synchronous<C extends Contribution>(options: SynchronousOptions): Strategy<C> {
  const { take, minimumWorkers, deadlineMs } = options
  assert(minimumWorkers >= 1 && take >= minimumWorkers)
  let round = new Map<number, C>()
  let dueAt: number | undefined
  const usual = new UsualRound()

  function review({ expected, now }: Situation): Decision<C> {
    const everyone = [...expected].every((worker) => round.has(worker))
    const overdue = dueAt !== undefined && now >= dueAt
    if (round.size < minimumWorkers || !(round.size >= take || everyone || overdue)) return wait
    const contributions = [...round.values()].sort((a, b) => a.worker - b.worker)
    round = new Map()
    dueAt = undefined
    usual.closed(now)
    return { kind: 'apply', contributions, rateFactor: 1 }
  }

  return {
    name: 'synchronous',
    get dueAt() {
      return dueAt
    },
    review,
    withdraw(contribution) {
      if (round.get(contribution.worker) !== contribution) return false
      round.delete(contribution.worker)
      if (round.size === 0) dueAt = undefined
      return true
    },
    add(contribution: C, situation: Situation): Decision<C> {
      const late = situation.version - contribution.baseVersion
      if (late > 0) {
        const error = new FederationError(
          'push-late',
          `expected a push for version ${situation.version}, got one for ${contribution.baseVersion}: its round is over`,
          { hint: 'Nothing to do: the worker takes the current parameters. If it happens often, raise the deadline.' },
        )
        return { kind: 'drop', contribution, error }
      }
      const replaced = round.get(contribution.worker)
      if (replaced !== undefined) {
        // The round is as full as before, so there is nothing to review.
        round.set(contribution.worker, contribution)
        return { kind: 'drop', contribution: replaced, error: pushReplaced(contribution.worker) }
      }
      round.set(contribution.worker, contribution)
      dueAt ??= situation.now + (deadlineMs ?? usual.deadlineMs)
      return review(situation)
    },
  }
}

const remembered = 15
/** A deadline is for workers that hang, not for those that are slow now and then. */
const patience = 10
const leastDeadlineMs = 10_000
/** Tracing, warming up: the first rounds are no measure. */
const firstDeadlineMs = 120_000

/** How long rounds take, from one update to the next. */
class UsualRound {
  readonly #durationsMs: number[] = []
  #closedAt: number | undefined

  closed(now: number): void {
    if (this.#closedAt !== undefined) this.#durationsMs.push(now - this.#closedAt)
    if (this.#durationsMs.length > remembered) this.#durationsMs.shift()
    this.#closedAt = now
  }

  get deadlineMs(): number {
    if (this.#durationsMs.length < 3) return firstDeadlineMs
    const sorted = this.#durationsMs.toSorted((a, b) => a - b)
    return Math.max(leastDeadlineMs, patience * sorted[sorted.length >> 1]!)
  }
}
