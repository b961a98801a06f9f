// SPDX-License-Identifier: Apache-2.0
/** Why a server ends, or takes no more updates. */
import { FederationError } from './federation-error.ts'

export function workersGone(withoutWorkersMs: number): FederationError {
  return new FederationError('workers-gone', `expected a worker within ${withoutWorkersMs} ms, got none`, {
    hint: 'Start workers, or see their logs for why they left. The model is saved as it is.',
  })
}

export function trainingFinished(totalUpdates: number): FederationError {
  return new FederationError('training-finished', `expected ${totalUpdates} updates in all, got one more`, {
    hint: 'Nothing to do: other workers were faster.',
  })
}

export function serverStopping(): FederationError {
  return new FederationError('server-stopping', 'expected the server to go on, got its stop', {
    hint: 'Somebody stopped the server. Workers wait for it to come back for the time that they were given.',
  })
}
