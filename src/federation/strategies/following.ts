// SPDX-License-Identifier: Apache-2.0
/**
 * A server that follows the leader of a synchronous job: it holds what workers push until the leader says whose pushes make
 * the next version, and then applies exactly these. The leader names only workers whose push every server has reported.
 */
import assert from 'node:assert/strict'
import { FederationError } from '../federation-error.ts'
import { type Contribution, type Decision, pushReplaced, type Situation, type Strategy, wait } from './strategy.ts'

export interface Following<C extends Contribution> extends Strategy<C> {
  /** What the leader decided for `baseVersion`. */
  round(baseVersion: number, workers: readonly number[]): Decision<C>
}

export function following<C extends Contribution>(): Following<C> {
  const held = new Map<number, C>()
  return {
    name: 'following',
    dueAt: undefined,
    review: () => wait,
    // The leader says what counts, and may have counted on it already.
    withdraw: () => false,
    add(contribution: C, { version }: Situation): Decision<C> {
      if (contribution.baseVersion < version) return { kind: 'drop', contribution, error: late(contribution, version) }
      const replaced = held.get(contribution.worker)
      held.set(contribution.worker, contribution)
      if (replaced === undefined) return wait
      return { kind: 'drop', contribution: replaced, error: pushReplaced(contribution.worker) }
    },
    round(baseVersion, workers) {
      const contributions = workers.map((worker) => {
        const contribution = held.get(worker)
        assert(contribution?.baseVersion === baseVersion, `worker ${worker}: its push for ${baseVersion} was reported`)
        held.delete(worker)
        return contribution
      })
      return { kind: 'apply', contributions, rateFactor: 1 }
    },
  }
}

function late({ baseVersion }: Contribution, version: number): FederationError {
  return new FederationError('push-late', `expected a push for version ${version}, got one for ${baseVersion}`, {
    hint: 'Nothing to do: the worker takes the current parameters. If it happens often, raise the deadline.',
  })
}
