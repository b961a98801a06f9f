// SPDX-License-Identifier: Apache-2.0
/** `cloister worker`: one worker of a job, wired and started. The protocol is in federation/worker.ts. */
import { randomBytes } from 'node:crypto'
import { systemClock } from '../federation/clock.ts'
import { manifestOf } from '../federation/manifest.ts'
import { Federation } from '../federation/protocol/gen/cloister/v1/federation_pb.ts'
import { runWorker } from '../federation/worker.ts'
import { connect } from '../transport/grpc-client.ts'
import { TransportError } from '../transport/transport-error.ts'
import { openAttestation } from './attestation.ts'
import type { CliContext } from './context.ts'
import { parseAddress } from './options.ts'
import { type RoleOptions, type RoleSession, runRole } from './role.ts'
import { openTraining } from './training.ts'
import { UsageError } from './usage-error.ts'

export function worker(context: CliContext, options: RoleOptions & { index: number }): Promise<number> {
  const { index } = options
  return runRole(context, options, { role: 'worker', source: `worker${index}` }, (session) => work(session, index))
}

async function work(session: RoleSession, index: number): Promise<void> {
  const { job, digest, deployment, engine, events, signal } = session
  if (index >= job.workers) {
    throw new UsageError('worker-index-out-of-range', `expected an index below ${job.workers}, got ${index}`, {
      hint: 'The job says how many workers there are; they are numbered from 0.',
    })
  }
  const { address } = deployment.server
  if (address === undefined) {
    throw new UsageError('server-address-missing', 'expected the address of the server, got none', {
      hint: 'Give it with --connect HOST:PORT or as server.address in the deployment file.',
    })
  }
  const attestation = await openAttestation(session, 'worker')
  const opened = await openTraining(session, index)
  try {
    const { credentials, describe } = attestation
    await runWorker({
      connect: () => connect({ ...parseAddress(address), credentials, method: Federation.method.join }),
      describe,
      mayRetry: (error) => error instanceof TransportError && retried.has(error.code),
      hello: {
        jobDigest: digest,
        planDigest: opened.share.planDigest,
        worker: index,
        examples: opened.share.training.length,
        dataSource: opened.dataSource,
        session: randomBytes(16),
      },
      engine,
      manifest: manifestOf(opened.model.variables),
      training: opened.training,
      reconnectForMs: deployment.reconnectForMs,
      clock: systemClock,
      events,
      signal,
    })
  } finally {
    attestation.close()
    await opened.close()
  }
}

/** The server is not there (yet, or any more); a server that is not what it should be is another matter. */
const retried: ReadonlySet<string> = new Set(['connect-failed', 'connection-lost'])
