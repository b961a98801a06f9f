// SPDX-License-Identifier: Apache-2.0
/**
 * A parameter server from its start to its end: it receives whoever comes and serves one epoch after the other. What a server
 * does in an epoch, the six steps, is in server.ts.
 */
import type { AttestedPeer } from '../attestation/policy.ts'
import { publicError } from '../errors.ts'
import { Deferred } from './deferred.ts'
import type { Farewell } from './farewell.ts'
import { FederationError } from './federation-error.ts'
import { Reception } from './reception.ts'
import { modelOf, progressOf } from './saved-state.ts'
import { Server } from './server.ts'
import { serverStopping } from './server-ends.ts'
import { serverName } from './server-name.ts'
import type { ServerOptions, ServerResult } from './server-options.ts'

/**
 * Resolves when training is complete or stopped; throws when it can't go on. What was learnt is saved in each case. When
 * another server of the job is lost, all begin a new epoch from what every one of them has on disk.
 */
export async function runServer<Peer extends AttestedPeer>(options: ServerOptions<Peer>): Promise<ServerResult> {
  const { clock, conclude = () => undefined, describe, events, group, limits, listener, signal } = options
  let epoch = new Deferred<Server<Peer>>()
  let farewell: Farewell | undefined
  const reception = new Reception<Peer>({
    listener,
    describe,
    async onWorker(arrival, hello) {
      if (farewell === undefined) return await (await epoch.promise).attend(arrival, hello)
      await farewell.attend(arrival, hello, describe(arrival.connection.peer))
    },
    async onServer({ connection, reader }, hello) {
      if (group.kind === 'leader') {
        const [peer, { evidence }] = [serverName(hello.server), describe(connection.peer)]
        const joined = (): void => events({ kind: 'peer-joined', peer, evidence })
        const reason = await group.attend(connection, reader, hello, joined)
        events({ kind: 'peer-left', peer, reason })
        if (reason === 'finished') farewell?.heard(peer)
        return
      }
      throw new FederationError('server-index-unknown', 'expected the leader to be asked, got a follower', {
        hint: 'Followers connect to server 0 of the job.',
      })
    },
    helloMs: limits.helloMs,
    clock,
    events,
  })
  try {
    for (;;) {
      const server = await begin(options)
      epoch.resolve(server)
      const scattered = await Promise.race([server.run(), reception.failed]).then(
        () => undefined,
        (error: unknown) => error,
      )
      if (scattered !== undefined) {
        if (!(scattered instanceof FederationError) || scattered.code !== 'servers-scattered') throw scattered
        events({ kind: 'warning', error: publicError(scattered) })
        epoch = new Deferred<Server<Peer>>()
        group.regroup()
        if (!signal.aborted) continue
      }
      const { result } = server
      conclude(result)
      const { lateWorkersMs } = limits
      if (result.reason === 'complete' && lateWorkersMs !== undefined) {
        farewell = server.farewell(lateWorkersMs)
        await farewell.wait()
      }
      return result
    }
  } finally {
    epoch.promise.catch(() => undefined)
    epoch.reject(serverStopping())
    await reception.close()
  }
}

/** From the newest step that all servers have. */
async function begin<Peer extends AttestedPeer>(options: ServerOptions<Peer>): Promise<Server<Peer>> {
  const { checkpoints, createModel, events, group, signal } = options
  const step = await group.begin(checkpoints ?? { steps: [], durableStep: 0 }, signal)
  await checkpoints?.discardAfter(step)
  if (step === 0 || checkpoints === undefined) return new Server(options, createModel(undefined), 0, undefined)
  // All have it. Who said so before may have died before the others heard.
  await checkpoints.declareDurable(step)
  const saved = await checkpoints.read(step)
  const progress = progressOf(saved)
  if (progress.auditHead !== undefined) options.audit?.requireHead(progress.auditHead)
  const model = createModel(modelOf(saved, progress.version))
  for await (const block of saved.rows) model.loadRows(block)
  events({ kind: 'resumed', step })
  return new Server(options, model, step, progress)
}
