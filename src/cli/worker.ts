// SPDX-License-Identifier: Apache-2.0
/** `cloister worker`: one worker of a job, wired and started. The protocol is in federation/worker.ts. */
import { randomBytes } from 'node:crypto'
import { systemClock } from '../federation/clock.ts'
import { Federation } from '../federation/protocol/gen/cloister/v1/federation_pb.ts'
import { runWorker } from '../federation/worker.ts'
import { connect } from '../transport/client.ts'
import { Health, listenForHealth } from '../transport/health.ts'
import { openAttestation } from './attestation.ts'
import { openNewestSeen } from './checkpoints.ts'
import type { CliContext } from './context.ts'
import { parseAddress } from './options.ts'
import { provisioningOf } from './provisioning.ts'
import { mayRetry } from './reconnect.ts'
import { type RoleOptions, type RoleSession, runRole } from './role.ts'
import { openTraining } from './training.ts'
import { UsageError } from './usage-error.ts'
import { layoutOf } from './wiring.ts'

export function worker(context: CliContext, options: RoleOptions & { index: number }): Promise<number> {
  const { index } = options
  return runRole(context, options, { role: 'worker', source: `worker${index}` }, (session) => work(session, index))
}

async function work(session: RoleSession, index: number): Promise<void> {
  const { job, deployment } = session
  if (index >= job.workers) {
    throw new UsageError('worker-index-out-of-range', `expected an index below ${job.workers}, got ${index}`, {
      hint: 'The job says how many workers there are; they are numbered from 0.',
    })
  }
  const addresses = deployment.server.addresses ?? []
  if (addresses.length !== job.servers) {
    throw new UsageError(
      'server-address-missing',
      `expected the addresses of ${job.servers} servers, got ${addresses.length}`,
      { hint: 'Give each with --connect HOST:PORT, in their order, or as server.addresses in the deployment file.' },
    )
  }
  const health = new Health()
  const probes = deployment.server.health && (await listenForHealth({ ...deployment.server.health, health }))
  health.set('', true)
  try {
    await takePart(session, index, addresses)
  } finally {
    await probes?.close()
  }
}

/** From the attestation to the end of the job. */
async function takePart(session: RoleSession, index: number, addresses: readonly string[]): Promise<void> {
  const { job, digest, deployment, engine, events, signal } = session
  const attestation = await openAttestation(session, 'worker')
  const newestSeen = await openNewestSeen(session, index)
  const { credentials, describe } = attestation
  const provisioning = await provisioningOf(session, { role: 'worker', index, count: job.workers, credentials })
  const opened = await openTraining(session, index, provisioning.dataIdentities)
  try {
    const { mode } = job.training
    await runWorker({
      connect: (server) =>
        connect({ ...parseAddress(addresses[server]!), credentials, method: Federation.method.join }),
      describe,
      mayRetry,
      hello: {
        jobDigest: digest,
        planDigest: opened.share.planDigest,
        worker: index,
        examples: opened.share.training.length,
        dataSource: opened.dataSource,
        session: randomBytes(16),
      },
      engine,
      layout: layoutOf(job, opened.model),
      training: opened.training,
      synchronous: mode.name === 'synchronous',
      prefetch: mode.name === 'asynchronous' && mode.prefetch,
      ...(opened.preparation !== undefined && { preparation: opened.preparation }),
      newestSeen,
      acceptRollback: job.rollback === 'accept',
      reconnectForMs: deployment.reconnectForMs,
      clock: systemClock,
      events,
      signal,
    })
  } finally {
    await provisioning.close()
    attestation.close()
    await opened.close()
  }
}
