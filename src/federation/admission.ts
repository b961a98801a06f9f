// SPDX-License-Identifier: Apache-2.0
/** What a worker says, held against the job, against what its connection has proven and against what it was asked. */
import type { AttestedPeer } from '../attestation/policy.ts'
import { FederationError } from './federation-error.ts'
import type { Hello } from './protocol/worker-claims.ts'
import type { ServerOptions } from './server-options.ts'

export interface AdmissionRules {
  readonly jobDigest: Uint8Array
  /** Of the first worker; any is good as long as there was none. */
  readonly planDigest: Uint8Array | undefined
  readonly placementDigest: Uint8Array
  /** Which server this is. */
  readonly server: number
  readonly workers: number
  /** The only index that the peer's credentials allow; any when absent. */
  readonly workerIndex?: number | undefined
  /** Session of the worker that has the index now. */
  readonly sessionInPlace?: Uint8Array | undefined
}

export function rulesOf<Peer extends AttestedPeer>(
  { job, layout, server }: ServerOptions<Peer>,
  planDigest: Uint8Array | undefined,
): AdmissionRules {
  return { jobDigest: job.digest, planDigest, placementDigest: layout.placement.digest, server, workers: job.workers }
}

export function verifyHello(hello: Hello, rules: AdmissionRules): void {
  const { worker } = hello
  if (!sameBytes(hello.jobDigest, rules.jobDigest)) {
    throw new FederationError(
      'job-mismatch',
      `expected the job ${hex(rules.jobDigest)}, got a worker of the job ${hex(hello.jobDigest)}`,
      { hint: 'Give server and workers the same job file; any difference in it, even a number, makes another job.' },
    )
  }
  verifyServer(hello, rules)
  if (rules.planDigest !== undefined && !sameBytes(hello.planDigest, rules.planDigest)) {
    throw new FederationError(
      'plan-mismatch',
      `expected the data plan ${hex(rules.planDigest)}, got a worker of the plan ${hex(hello.planDigest)}`,
      { hint: 'Partition the data with the same job and the same data set on every party.' },
    )
  }
  if (worker >= rules.workers) {
    throw new FederationError('worker-index-unknown', `expected a worker below ${rules.workers}, got ${worker}`, {
      hint: 'Workers are numbered from 0; the job says how many there are.',
    })
  }
  if (rules.workerIndex !== undefined && worker !== rules.workerIndex) {
    throw new FederationError('worker-index-forbidden', `expected worker ${rules.workerIndex}, got worker ${worker}`, {
      hint: 'The credentials of this worker belong to another index.',
    })
  }
  if (hello.examples === 0) {
    throw new FederationError('worker-without-examples', `expected worker ${worker} to hold examples, got none`, {
      hint: 'Partition the data so that every shard has examples, or start fewer workers.',
    })
  }
  if (rules.sessionInPlace !== undefined && !sameBytes(hello.session, rules.sessionInPlace)) {
    throw new FederationError('worker-index-taken', `expected a free index, got ${worker}, which trains already`, {
      hint: 'Give each worker its own index. After a crash, wait until the server has noticed that the old one is gone.',
    })
  }
}

function verifyServer(hello: Hello, rules: Pick<AdmissionRules, 'placementDigest' | 'server'>): void {
  if (hello.server !== rules.server) {
    throw new FederationError(
      'server-index-unknown',
      `expected server ${rules.server} to be meant, got ${hello.server}`,
      {
        hint: 'List the addresses of the job’s servers in their order.',
      },
    )
  }
  if (!sameBytes(hello.placementDigest, rules.placementDigest)) {
    throw new FederationError(
      'placement-mismatch',
      `expected the placement ${hex(rules.placementDigest)}, got ${hex(hello.placementDigest)}`,
      { hint: 'Server and workers must run the same job with the same version of Cloister.' },
    )
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

/** Enough to tell digests apart in a message. */
export function hex(digest: Uint8Array): string {
  return `${Buffer.from(digest).toString('hex').slice(0, 16)}…`
}
