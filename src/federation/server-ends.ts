// SPDX-License-Identifier: Apache-2.0
/** Why a server ends, or does not take an update. */
import { FederationError } from './federation-error.ts'
import type { Holdings } from './group.ts'
import type { Task } from './protocol/remote-worker.ts'

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

export function handedOutAgain(worker: number, { shard, position }: Task): FederationError {
  return new FederationError(
    'push-replaced',
    `expected batch ${position} of shard ${shard} from whoever has it now, got it from worker ${worker}`,
    { hint: 'Nothing to do: a worker came back or its shard moved, and the batch is computed anew.' },
  )
}

export function serverStopping(): FederationError {
  return new FederationError('server-stopping', 'expected the server to go on, got its stop', {
    hint: 'Somebody stopped the server. Workers wait for it to come back for the time that they were given.',
  })
}

/** What a follower fails with: training is not complete, and whoever starts it again should. */
export function leaderStopping(): FederationError {
  return new FederationError('server-stopping', 'expected server 0 to go on, got its stop', {
    hint: 'Somebody stopped server 0. Start all servers again: they go on from what every one of them saved.',
  })
}

/** Training is over and the result is there; some workers may not know. */
export function unheard(missing: readonly string[], lateWorkersMs: number): FederationError {
  return new FederationError(
    'peers-unheard',
    `expected everybody to hear that training is over, not yet ${missing.join(', ')}; they are waited for ${lateWorkersMs} ms`,
    { hint: 'Nothing to do: the model and the result are saved. Whoever does not want to wait stops this server.' },
  )
}

/** A server that comes when training is over must go on from the step that it ended with. */
export function lastStepMissing(server: number, step: number, steps: readonly number[]): FederationError {
  return new FederationError(
    'server-rolled-back',
    `expected step ${step}, with which training ended, on the disk of server ${server}, got ${steps.at(-1) ?? 'none'} as its newest`,
    { hint: 'It lost its checkpoints, or its host gave it old ones: bring the newer ones back, nothing was deleted.' },
  )
}

/** An epoch ends. */
export function scattered(server: number, cause: unknown): FederationError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new FederationError('servers-scattered', `expected all servers of the job, lost server ${server}: ${why}`, {
    hint: 'Start it again: all servers then go on from the newest step that every one of them has on disk.',
    cause,
  })
}

/** `holdings`: by server. */
export function serversSetBack(step: number, holdings: ReadonlyMap<number, Holdings>): FederationError {
  const newest = Math.max(...[...holdings.values()].map(({ durableStep }) => durableStep))
  const there = [...holdings].map(([server, { steps }]) => `server ${server} ${steps.at(-1) ?? 'none'}`).join(', ')
  const got = step === 0 ? 'none that all have' : `step ${step} as the newest that all have`
  return new FederationError(
    'server-rolled-back',
    `expected step ${newest}, which was on disk at every server, got ${got}; newest: ${there}`,
    {
      hint:
        'A server lost its checkpoints, or its host gave it old ones: bring the newer ones back, nothing was deleted. To begin ' +
        'anew, move checkpoints/ of all servers away.',
    },
  )
}
