// SPDX-License-Identifier: Apache-2.0
/** `cloister server`: the parameter server of a job, wired and started. The protocol is in federation/server.ts. */
import { publicError } from '../errors.ts'
import { systemClock } from '../federation/clock.ts'
import { Federation } from '../federation/protocol/gen/cloister/v1/federation_pb.ts'
import { runServer } from '../federation/server.ts'
import type { PendingUpdate, ServerLimits } from '../federation/server-options.ts'
import { listen } from '../transport/grpc-server.ts'
import { Health, listenForHealth } from '../transport/health.ts'
import { openAttestation } from './attestation.ts'
import type { CliContext } from './context.ts'
import { savedVariables, saveVariables } from './model-files.ts'
import { type RoleOptions, type RoleSession, runRole } from './role.ts'
import { resultOf, writeResult } from './summary.ts'
import { createModel, createModelState, createSchedule, createStrategy } from './wiring.ts'

export interface ServerOptions extends RoleOptions {
  /** Goes on from what an earlier server saved in the run directory. */
  readonly resume?: boolean
}

/** Reasons in docs/limits.md. */
const limits: ServerLimits = { helloMs: 10_000, evaluationMs: 600_000, withoutWorkersMs: 600_000 }

export function server(context: CliContext, options: ServerOptions): Promise<number> {
  return runRole(context, options, { role: 'server', source: 'server' }, (session) => serve(session, options))
}

async function serve(session: RoleSession, { resume = false }: ServerOptions): Promise<void> {
  const { job, digest, deployment, engine, events, signal } = session
  const model = createModelState(engine, job, createModel(job), resume ? await savedVariables(session) : undefined)
  const attestation = await openAttestation(session, 'server')
  const health = new Health()
  const listener = await listen({
    ...deployment.server.listen,
    credentials: attestation.credentials,
    method: Federation.method.join,
    health,
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
    const result = await runServer({
      listener,
      describe: attestation.describe,
      job: {
        digest,
        workers: job.workers,
        batchSize: job.training.batchSize,
        totalUpdates: job.training.updates,
        evaluateEvery: job.training.evaluateEvery,
        saveEvery: deployment.saveEvery,
      },
      engine,
      model,
      strategy: createStrategy<PendingUpdate>(job),
      schedule: createSchedule(job),
      save: (snapshot) => saveVariables(session, snapshot),
      limits,
      clock: systemClock,
      events,
      signal,
    })
    const dataSource = commonSource(result.workers.map((worker) => worker.dataSource))
    const mode = job.training.mode.name
    writeResult(session, resultOf(session, { ...result, mode, dataSource, peers: result.workers }))
  } finally {
    await probes?.close()
    attestation.close()
    await model.close()
  }
}

/** One word where all agree, else all of them: a run that is synthetic in part is never called anything else. */
function commonSource(sources: readonly string[]): string {
  return [...new Set(sources)].sort().join(' + ') || 'none'
}
