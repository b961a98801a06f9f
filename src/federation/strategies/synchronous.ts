// SPDX-License-Identifier: Apache-2.0
/**
 * Synchronous SGD: a round gathers pushes that were computed with the same parameters and applies them as one update.
 *
 * A round closes as soon as one of these holds, and never with fewer than `minimumWorkers` pushes:
 *   1. `take` workers have pushed (all of the job's workers, or N of M);
 *   2. every worker that may still push has pushed: a lost worker is not waited for, one that has not joined yet is;
 *   3. `deadlineMs` have passed since the round's first push.
 * What comes after its round has closed is dropped, and its worker goes on with the new parameters.
 */
import assert from 'node:assert/strict'
import { FederationError } from '../federation-error.ts'
import { type Contribution, type Decision, type Situation, type Strategy, wait } from './strategy.ts'

export interface SynchronousOptions {
  readonly take: number
  readonly minimumWorkers: number
  /** No deadline when absent. */
  readonly deadlineMs?: number
}

export function synchronous<C extends Contribution>(options: SynchronousOptions): Strategy<C> {
  const { take, minimumWorkers, deadlineMs } = options
  assert(minimumWorkers >= 1 && take >= minimumWorkers)
  let round = new Map<number, C>()
  let dueAt: number | undefined

  function review({ expected, now }: Situation): Decision<C> {
    const everyone = [...expected].every((worker) => round.has(worker))
    const overdue = dueAt !== undefined && now >= dueAt
    if (round.size < minimumWorkers || !(round.size >= take || everyone || overdue)) return wait
    const contributions = [...round.values()].sort((a, b) => a.worker - b.worker)
    round = new Map()
    dueAt = undefined
    return { kind: 'apply', contributions, rateFactor: 1 }
  }

  return {
    name: 'synchronous',
    get dueAt() {
      return dueAt
    },
    review,
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
        const error = new FederationError('push-replaced', `worker ${contribution.worker} came back and pushed anew`, {
          hint: 'Nothing to do: the newer push counts.',
        })
        return { kind: 'drop', contribution: replaced, error }
      }
      round.set(contribution.worker, contribution)
      if (deadlineMs !== undefined) dueAt ??= situation.now + deadlineMs
      return review(situation)
    },
  }
}
