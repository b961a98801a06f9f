// SPDX-License-Identifier: Apache-2.0
/**
 * Asynchronous SGD: each push is applied as it comes. Staleness is the number of updates that the model has seen since the
 * parameters that the push was computed with. A bound drops what is too old; the rate can shrink with staleness as
 * 1/(1 + staleness)^a (Xie et al. 2019, polynomial; a = 1 is Zhang et al. 2016 shifted so that fresh pushes count fully).
 */
import { FederationError } from '../federation-error.ts'
import { type Contribution, type Decision, type Situation, type Strategy, wait } from './strategy.ts'

export interface AsynchronousOptions {
  /** Older pushes are dropped; no bound when absent. */
  readonly maxStaleness?: number
  /** The exponent a; 0 leaves the rate as it is. */
  readonly stalenessExponent: number
}

export function asynchronous<C extends Contribution>(options: AsynchronousOptions): Strategy<C> {
  const { maxStaleness = Number.POSITIVE_INFINITY, stalenessExponent } = options
  return {
    name: 'asynchronous',
    dueAt: undefined,
    review: () => wait,
    withdraw: () => false,
    add(contribution: C, { version }: Situation): Decision<C> {
      const staleness = version - contribution.baseVersion
      if (staleness > maxStaleness) {
        const error = new FederationError(
          'push-stale',
          `expected a staleness of at most ${maxStaleness}, got ${staleness}`,
          { hint: 'Nothing to do: the worker takes the current parameters. If it happens often, raise the bound.' },
        )
        return { kind: 'drop', contribution, error }
      }
      return { kind: 'apply', contributions: [contribution], rateFactor: (1 + staleness) ** -stalenessExponent }
    },
  }
}
