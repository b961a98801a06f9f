// SPDX-License-Identifier: Apache-2.0
/** `cloister server`: a parameter server of a job, wired and started. The protocol is in federation/server.ts. */
import type { AttestedPeer } from '../attestation/policy.ts'
import { publicError } from '../errors.ts'
import { systemClock } from '../federation/clock.ts'
import { Follower } from '../federation/follower.ts'
import { Leader } from '../federation/leader.ts'
import { Federation } from '../federation/protocol/gen/cloister/v1/federation_pb.ts'
import { runServer } from '../federation/run-server.ts'
import { leaderStopping } from '../federation/server-ends.ts'
import { serverName } from '../federation/server-name.ts'
import { connect } from '../transport/client.ts'
import { Health, listenForHealth } from '../transport/health.ts'
import { listen } from '../transport/server.ts'
import { openAttestation } from './attestation.ts'
import { openCheckpoints } from './checkpoints.ts'
import type { CliContext } from './context.ts'
import { releaseModel } from './model-files.ts'
import { parseAddress } from './options.ts'
import { provisioningOf } from './provisioning.ts'
import { persistently } from './reconnect.ts'
import { type RoleOptions, type RoleSession, runRole } from './role.ts'
import { resultOf, writePartResult, writeResult } from './summary.ts'
import { UsageError } from './usage-error.ts'
import { createModelState, createSchedule, createStrategy, layoutOf, workloadOf } from './wiring.ts'

export interface ServerOptions extends RoleOptions {
  readonly index: number
}

/** Reasons in docs/limits.md. */
const limits = { helloMs: 10_000, evaluationMs: 600_000, withoutWorkersMs: 600_000 }

export function server(context: CliContext, options: ServerOptions): Promise<number> {
  const { index } = options
  return runRole(context, options, { role: 'server', source: serverName(index) }, (session) => serve(session, index))
}

async function serve(session: RoleSession, index: number): Promise<void> {
  const { job, digest, deployment, engine, events, signal } = session
  if (index >= job.servers) {
    throw new UsageError('server-index-out-of-range', `expected an index below ${job.servers}, got ${index}`, {
      hint: 'The job says how many servers there are; they are numbered from 0.',
    })
  }
  const workload = workloadOf(job)
  const model = workload.createModel()
  const layout = layoutOf(job, model)
  const attestation = await openAttestation(session, 'server')
  const { credentials } = attestation
  const provisioning = await provisioningOf(session, { role: 'server', index, count: job.servers, credentials })
  const checkpoints = await openCheckpoints(session, index, provisioning.checkpointKey)
  const following = index === 0 ? undefined : await openAttestation(session, 'follower')
  const group = { servers: job.servers, jobDigest: digest, placementDigest: layout.placement.digest }
  const health = new Health()
  const listener = await listen<
    AttestedPeer,
    typeof Federation.method.join.input,
    typeof Federation.method.join.output
  >({
    ...deployment.server.listen,
    credentials,
    method: Federation.method.join,
    onRefused: (address, error) => events({ kind: 'peer-refused', address, error: publicError(error) }),
  })
  const probes =
    deployment.server.health &&
    (await listenForHealth({ ...deployment.server.health, health }).catch(async (error) => {
      await listener.close()
      throw error
    }))
  for (const service of ['', Federation.typeName]) health.set(service, true)
  events({ kind: 'listening', address: listener.address })
  try {
    const { training } = job
    const synchronous = training.mode.name === 'synchronous'
    const result = await runServer({
      listener,
      describe: attestation.describe,
      job: {
        digest,
        workers: job.workers,
        batchSize: training.batchSize,
        totalUpdates: training.updates,
        evaluateEvery: training.evaluateEvery,
        saveEvery: deployment.saveEvery,
        saveEveryMs: deployment.saveEveryMs,
        synchronous,
        minimumToStart: training.minimumToStart,
        ...(training.moveShards !== undefined && { moveShardsAfterMs: training.moveShards.afterMs }),
      },
      engine,
      layout,
      server: index,
      group:
        following === undefined
          ? new Leader({ ...group, acceptRollback: job.rollback === 'accept' })
          : new Follower({
              ...group,
              server: index,
              connect: persistently(session, 'server-unreachable', () =>
                connect({
                  ...parseAddress(leaderAddress(session)),
                  credentials: following.credentials,
                  method: Federation.method.join,
                }),
              ),
            }),
      createModel: (saved) => createModelState(engine, job, model, { layout, server: index, saved }),
      createStrategy: () => createStrategy(job, index),
      schedule: createSchedule(job),
      ...(workload.preparation !== undefined && { preparation: workload.preparation() }),
      checkpoints,
      ...(session.audit !== undefined && { audit: session.audit }),
      release: (state) => releaseModel(session, index, state),
      conclude(result) {
        if (index > 0) return writePartResult(session, index, result)
        const dataSource = commonSource(result.workers.map((worker) => worker.dataSource))
        writeResult(
          session,
          resultOf(session, { ...result, mode: training.mode.name, dataSource, peers: result.workers }),
        )
      },
      // As long as workers look for their servers, where they are deployed alike.
      limits: { ...limits, lateWorkersMs: deployment.reconnectForMs },
      clock: systemClock,
      events,
      signal,
    })
    // Training goes on when server 0 is back: whoever started this process must not take it for done.
    if (index > 0 && result.reason === 'stopped' && !signal.aborted) throw leaderStopping()
  } finally {
    await probes?.close()
    await provisioning.close()
    attestation.close()
    following?.close()
  }
}

function leaderAddress({ deployment }: RoleSession): string {
  const [leader] = deployment.server.addresses ?? []
  if (leader !== undefined) return leader
  throw new UsageError('server-address-missing', 'expected the address of server 0, got none', {
    hint: 'Give it with --connect HOST:PORT or as the first of server.addresses in the deployment file.',
  })
}

/** One word where all agree, else all of them: a run that is synthetic in part is never called anything else. */
function commonSource(sources: readonly string[]): string {
  return [...new Set(sources)].sort().join(' + ') || 'none'
}
