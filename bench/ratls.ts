// SPDX-License-Identifier: Apache-2.0
/**
 * What RA-TLS costs over plain mutual TLS 1.3, in CPU ms of both ends together: certificates with quotes, two verifications of
 * evidence a side, the exchange. Quotes are made by the simulated platform; their cost is measured apart and taken off,
 * since on SGX it is the quoting enclave's. Goal: at most twice the plain handshake.
 *
 *     npx tsx bench/ratls.ts [handshakes]
 */
import { createHash, randomBytes, type X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'
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
import { createPinnedIdentity } from '../src/transport/pinned.ts'

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
const [plainServer, plainClient] = [
  createPinnedIdentity('server', new Date()),
  createPinnedIdentity('client', new Date()),
]

type Identity = { certificate: string; privateKey: string }
type Authenticate = (socket: TLSSocket, certificate: X509Certificate) => Promise<unknown>
const { signal } = new AbortController()
const side = (its: AttestedCredentials, side: 'client' | 'server'): Authenticate => {
  return (socket, certificate) => its.authenticate({ socket, certificate, side }, signal)
}
/** What pinned credentials do. */
const plain: Authenticate = async (_socket, certificate) => createHash('sha256').update(certificate.raw).digest()

/** CPU ms of one handshake, both ends: `handshakes` of them, one after the other. */
async function measure(ends: [Identity, Identity], atServer: Authenticate, atClient: Authenticate): Promise<number> {
  const options = { minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: false } as const
  const listener = createServer({ cert: ends[0].certificate, key: ends[0].privateKey, ...options })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const before = process.cpuUsage()
  for (let done = 0; done < handshakes; done++) {
    const accepted = once(listener, 'secureConnection') as Promise<[TLSSocket]>
    const client = connect({
      host: '127.0.0.1',
      port,
      cert: ends[1].certificate,
      key: ends[1].privateKey,
      minVersion: 'TLSv1.3',
      rejectUnauthorized: false,
    })
    const [[socket]] = await Promise.all([accepted, once(client, 'secureConnect')])
    await Promise.all([
      atServer(socket, socket.getPeerX509Certificate()!),
      atClient(client, client.getPeerX509Certificate()!),
    ])
    client.destroy()
    socket.destroy()
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

const median = (values: number[]): number => values.sort((one, other) => one - other)[values.length >> 1]!
const samples: { plain: number[]; attested: number[]; quote: number[] } = { plain: [], attested: [], quote: [] }
for (let round = -1; round < rounds; round++) {
  const sample = {
    plain: await measure([plainServer, plainClient], plain, plain),
    attested: await measure([server.identity(), worker.identity()], side(server, 'server'), side(worker, 'client')),
    quote: await quoteMs(),
  }
  // The first round warms up the compiler.
  if (round >= 0) for (const key of ['plain', 'attested', 'quote'] as const) samples[key].push(sample[key])
}
const [plainMs, attestedMs, quotingMs] = [median(samples.plain), median(samples.attested), median(samples.quote)]
const withoutQuotes = attestedMs - 2 * quotingMs
console.log(
  JSON.stringify({
    handshakes: handshakes * rounds,
    plainMutualTlsCpuMs: round2(plainMs),
    ratlsCpuMs: round2(attestedMs),
    simulatedQuoteCpuMs: round2(quotingMs),
    ratlsWithoutQuotesCpuMs: round2(withoutQuotes),
    ratio: round2(withoutQuotes / plainMs),
    goal: 2,
  }),
)
server.close()
worker.close()
await rm(directory, { recursive: true })

function round2(value: number): number {
  return Math.round(value * 100) / 100
}
