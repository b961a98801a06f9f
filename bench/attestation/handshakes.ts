// SPDX-License-Identifier: Apache-2.0
/**
 * RA-TLS handshakes beside plain mutual TLS 1.3, CPU ms of both ends together. Plain is the same transport with pinned certificates;
 * RA-TLS adds certificates with quotes, two verifications of evidence a side, and the exchange. Quotes are made by the
 * simulated platform; what making them costs is measured apart and taken off, since on SGX it is the quoting enclave's.
 *
 * - again: peers that have met before, as after a lost connection: certificates, plain or attested, were read then;
 * - renewed: the same, after our own certificates were replaced: which one was shown must be asked;
 * - first: keys and certificates on both sides that the other has never seen. Making them is not counted.
 */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSimulatedPlatform } from '../../src/attestation/platforms/simulated.ts'
import { openSimulatedAuthority } from '../../src/attestation/platforms/simulated-authority.ts'
import {
  collateralBundle,
  collateralTerms,
  issueCollateral,
} from '../../src/attestation/platforms/simulated-collateral.ts'
import { parsePolicy } from '../../src/attestation/policy-format.ts'
import { MonotonicClock } from '../../src/attestation/validity.ts'
import { AttestedCredentials } from '../../src/ratls/credentials.ts'
import type { Credentials } from '../../src/transport/connection.ts'
import { defaultLimits } from '../../src/transport/limits.ts'
import { authenticateClient, authenticateServer } from '../../src/transport/tls.ts'
import { createPinnedIdentity, type PinnedIdentity, pinnedCredentials } from '../../test/support/pinned.ts'
import { median } from '../statistics.ts'

export interface HandshakeFigures {
  readonly plainMs: number
  readonly attestedMs: number
  /** RA-TLS over plain, rounds that followed each other. */
  readonly ratio: number
}

/** Rounds of the compiler's: RA-TLS is far more of our own code than TLS, and runs twice as fast once it is optimized. */
const warmUps = 5

interface Ends<Server, Client> {
  readonly server: Credentials<Server>
  readonly client: Credentials<Client>
}

export async function measureHandshakes(rounds: number, handshakes: number) {
  const directory = await mkdtemp(join(tmpdir(), 'cloister-bench-'))
  const authority = await openSimulatedAuthority({ directory, now: () => new Date(), secret: () => randomBytes(32) })
  // Opening a file for each quote costs more than signing it, and not the same here as in a loop by itself.
  const variants = await authority.variants()
  authority.variants = async () => variants
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
  const attestedEnds = async () => ({ server: await credentials('server'), client: await credentials('worker') })
  const pinned = (own: PinnedIdentity, { fingerprint }: PinnedIdentity) =>
    pinnedCredentials(own, [{ name: 'the other', fingerprint }])
  const plainEnds = (): Ends<unknown, unknown> => {
    const [own, other] = ['server', 'client'].map((name) => createPinnedIdentity(name, new Date())) as [
      PinnedIdentity,
      PinnedIdentity,
    ]
    return { server: pinned(own, other), client: pinned(other, own) }
  }
  const acquainted = plainEnds()
  const [again, renewed, strangers] = [await attestedEnds(), await attestedEnds(), await attestedEnds()]
  const renew = ({ server, client }: typeof again) => Promise.all([server.renew(), client.renew()])
  await renew(renewed)
  const kinds = {
    again: { plain: async () => acquainted, attested: async () => again },
    renewed: { plain: async () => acquainted, attested: async () => renewed },
    first: {
      plain: async () => plainEnds(),
      attested: async () => {
        await renew(strangers)
        return strangers
      },
    },
  }
  const quotingMs = async (): Promise<number> => {
    const before = process.cpuUsage()
    for (let done = 0; done < handshakes; done++) await platform.quote(randomBytes(64))
    return cpuMsSince(before) / handshakes
  }

  const names = ['again', 'renewed', 'first'] as const
  type Sample = Omit<HandshakeFigures, 'ratio'>
  const samples: Record<(typeof names)[number], Sample[]> = { again: [], renewed: [], first: [] }
  for (let round = -warmUps; round < rounds; round++) {
    for (const kind of names) {
      const plainMs = await measure(kinds[kind].plain, handshakes)
      const withQuotesMs = await measure(kinds[kind].attested, handshakes)
      const attestedMs = withQuotesMs - 2 * (await quotingMs())
      if (round >= 0) samples[kind].push({ plainMs, attestedMs })
    }
  }
  for (const { server, client } of [again, renewed, strangers]) {
    server.close()
    client.close()
  }
  await rm(directory, { recursive: true })
  const figures = (kind: (typeof names)[number]): HandshakeFigures => ({
    plainMs: median(samples[kind].map((it) => it.plainMs)),
    attestedMs: median(samples[kind].map((it) => it.attestedMs)),
    ratio: median(samples[kind].map((it) => it.attestedMs / it.plainMs)),
  })
  return { again: figures('again'), renewed: figures('renewed'), first: figures('first') }
}

/** CPU ms of one handshake, both ends, as the transport makes it; preparing the ends is not counted. */
async function measure<Server, Client>(
  prepare: () => Promise<Ends<Server, Client>>,
  handshakes: number,
): Promise<number> {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  let cpuMs = 0
  for (let done = 0; done < handshakes; done++) {
    const { server, client } = await prepare()
    const before = process.cpuUsage()
    const accepted = once(listener, 'connection') as Promise<[Socket]>
    const raw = connect(port, '127.0.0.1')
    const [socket] = await accepted
    const sockets = await Promise.all([
      authenticateClient(socket, server, defaultLimits),
      authenticateServer(raw, client, defaultLimits),
    ])
    for (const { socket } of sockets) socket.destroy()
    cpuMs += cpuMsSince(before)
  }
  listener.close()
  return cpuMs / handshakes
}

function cpuMsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}
