// SPDX-License-Identifier: Apache-2.0
/** `cloister server`: the parameter server of a job, wired and started. The protocol is in federation/server.ts. */
import { publicError } from '../errors.ts'
import { systemClock } from '../federation/clock.ts'
import { Federation } from '../federation/protocol/gen/cloister/v1/federation_pb.ts'
import { runServer } from '../federation/server.ts'
import type { PendingUpdate, ServerLimits } from '../federation/server-options.ts'
import { listen } from '../transport/grpc-server.ts'
import { openAttestation } from './attestation.ts'
import type { CliContext } from './context.ts'
import { saveVariables } from './model-files.ts'
import { type RoleOptions, type RoleSession, runRole } from './role.ts'
import { resultOf, writeResult } from './summary.ts'
import { createModel, createModelState, createSchedule, createStrategy } from './wiring.ts'

/** Reasons in docs/operations.md. */
const limits: ServerLimits = { helloMs: 10_000, evaluationMs: 600_000, withoutWorkersMs: 600_000 }

export function server(context: CliContext, options: RoleOptions): Promise<number> {
  return runRole(context, options, { role: 'server', source: 'server' }, serve)
}

async function serve(session: RoleSession): Promise<void> {
  const { job, digest, deployment, engine, events, signal } = session
  const model = createModelState(engine, job, createModel(job))
  const attestation = await openAttestation(session, 'server')
  const listener = await listen({
    ...deployment.server.listen,
    credentials: attestation.credentials,
    method: Federation.method.join,
    onRefused: (address, error) => events({ kind: 'peer-refused', address, error: publicError(error) }),
  })
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
        saveEvery: 0,
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
    attestation.close()
    await model.close()
  }
}

/** One word where all agree, else all of them: a run that is synthetic in part is never called anything else. */
function commonSource(sources: readonly string[]): string {
  return [...new Set(sources)].sort().join(' + ') || 'none'
}
