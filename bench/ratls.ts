// SPDX-License-Identifier: Apache-2.0
/**
 * What RA-TLS costs over plain mutual TLS 1.3, in CPU ms of both ends together: certificates with quotes, two verifications of
 * evidence a side, the exchange; plain is the same transport with pinned certificates. Quotes are made by the simulated platform; their cost is measured apart and taken off,
 * since on SGX it is the quoting enclave's. Goal: at most twice the plain handshake.
 *
 *     npm run bench -- ratls [HANDSHAKES]
 */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSimulatedPlatform } from '../src/attestation/platforms/simulated.ts'
import { openSimulatedAuthority } from '../src/attestation/platforms/simulated-authority.ts'
import {
  collateralBundle,
  collateralTerms,
  issueCollateral,
} from '../src/attestation/platforms/simulated-collateral.ts'
import { parsePolicy } from '../src/attestation/policy-format.ts'
import { MonotonicClock } from '../src/attestation/validity.ts'
import { AttestedCredentials } from '../src/ratls/credentials.ts'
import type { Credentials } from '../src/transport/connection.ts'
import { defaultLimits } from '../src/transport/limits.ts'
import { createPinnedIdentity, type PinnedIdentity, pinnedCredentials } from '../src/transport/pinned.ts'
import { authenticateClient, authenticateServer } from '../src/transport/tls.ts'
import { median, table } from './statistics.ts'

const handshakes = Number(process.argv[2] ?? 300)
const rounds = 5
const directory = await mkdtemp(join(tmpdir(), 'cloister-bench-'))
const authority = await openSimulatedAuthority({ directory, now: () => new Date(), secret: () => randomBytes(32) })
const mrEnclave = createHash('sha256').update('cloister').digest('hex')
const platform = await openSimulatedPlatform({ authority, mrEnclave, image: 'development' })
const collateral = collateralBundle(
  issueCollateral(authority, await collateralTerms(authority, new Date())),
  'platform',
)
const policy = parsePolicy({
  version: 1,
  root: { name: 'simulated', sha256: createHash('sha256').update(authority.certificates.root.der).digest('hex') },
  enclave: { mrEnclave: ['self'] },
  attributes: { allowDebug: false, allowProvisioningKeys: false },
  tcb: { acceptedStatuses: ['UpToDate'], acceptedAdvisories: [], minimumEvaluationNumber: 0 },
  collateral: { graceHours: 0 },
  platforms: 'any',
  freshness: { maximumAgeMinutes: 60 },
})
const credentials = (role: 'server' | 'worker') =>
  AttestedCredentials.create({
    platform,
    role,
    policy,
    collateral: { collateralFor: async () => collateral },
    clock: new MonotonicClock(() => Date.now()),
    jobDigest: createHash('sha256').update('job').digest(),
    report: () => {},
  })
const [server, worker] = [await credentials('server'), await credentials('worker')]
const [plainServer, plainClient] = ['server', 'client'].map((name) => createPinnedIdentity(name, new Date())) as [
  PinnedIdentity,
  PinnedIdentity,
]
const pinned = (own: PinnedIdentity, { fingerprint }: PinnedIdentity) =>
  pinnedCredentials(own, [{ name: 'the other', fingerprint }])

/** CPU ms of one handshake, both ends, as the transport makes it: `handshakes` of them, one after the other. */
async function measure<Peer>(atServer: Credentials<Peer>, atClient: Credentials<Peer>): Promise<number> {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const before = process.cpuUsage()
  for (let done = 0; done < handshakes; done++) {
    const accepted = once(listener, 'connection') as Promise<[Socket]>
    const raw = connect(port, '127.0.0.1')
    const [socket] = await accepted
    const ends = await Promise.all([
      authenticateClient(socket, atServer, defaultLimits),
      authenticateServer(raw, atClient, defaultLimits),
    ])
    for (const { socket } of ends) socket.destroy()
  }
  const { user, system } = process.cpuUsage(before)
  listener.close()
  return (user + system) / 1000 / handshakes
}

async function quoteMs(): Promise<number> {
  const before = process.cpuUsage()
  for (let done = 0; done < handshakes; done++) await platform.quote(randomBytes(64))
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000 / handshakes
}

const samples: { plain: number[]; attested: number[]; quote: number[] } = { plain: [], attested: [], quote: [] }
for (let round = -1; round < rounds; round++) {
  const sample = {
    plain: await measure(pinned(plainServer, plainClient), pinned(plainClient, plainServer)),
    attested: await measure(server, worker),
    quote: await quoteMs(),
  }
  // The first round warms up the compiler.
  if (round >= 0) for (const key of ['plain', 'attested', 'quote'] as const) samples[key].push(sample[key])
}
const [plainMs, attestedMs, quotingMs] = [median(samples.plain), median(samples.attested), median(samples.quote)]
const withoutQuotes = attestedMs - 2 * quotingMs
table(
  ['handshake, both ends', 'CPU ms', 'of plain'],
  [
    ['plain mutual TLS 1.3', plainMs.toFixed(2), '1.00'],
    ['RA-TLS without making quotes (goal: at most 2)', withoutQuotes.toFixed(2), (withoutQuotes / plainMs).toFixed(2)],
    ['RA-TLS with two simulated quotes', attestedMs.toFixed(2), (attestedMs / plainMs).toFixed(2)],
  ],
)
server.close()
worker.close()
await rm(directory, { recursive: true })
