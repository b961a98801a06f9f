import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  jobDigest,
  meet,
  meetBoth,
  type Outcome,
  testCredentials,
  testPolicy,
} from '../../test/attested-credentials.ts'
import { codeDigest, testAuthority, testCollateral, testEnclave, testNow } from '../../test/simulated.ts'
import { plainIdentity, type TlsPair, tlsPair } from '../../test/tls-pair.ts'
import type { SimulatedAuthority } from '../attestation/platforms/simulated-authority.ts'
import { PolicyError } from '../attestation/policy-format.ts'
import { MonotonicClock } from '../attestation/validity.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { splitPem } from '../x509/pem.ts'
import { parseCertificateEvidence } from './certificate.ts'
import type { AttestedCredentials } from './credentials.ts'
import { frameTypes } from './frame-socket.ts'

let authority: SimulatedAuthority
let server: AttestedCredentials
let worker: AttestedCredentials
beforeAll(async () => {
  authority = await testAuthority()
  server = await testCredentials(authority, 'server')
  worker = await testCredentials(authority, 'worker')
})
afterAll(() => {
  server.close()
  worker.close()
})

const open: TlsPair[] = []
afterEach(async () => {
  for (const pair of open.splice(0)) await pair[Symbol.asyncDispose]()
})
async function connected(...ends: Parameters<typeof tlsPair>): Promise<TlsPair> {
  const pair = await tlsPair(...ends)
  open.push(pair)
  return pair
}
const codes = (outcomes: readonly Outcome[]) => outcomes.map((it) => ('peer' in it ? 'attested' : it.refused))
const reasons = (outcome: Outcome) =>
  'refused' in outcome && outcome.error instanceof PolicyError ? outcome.error.reasons.map(({ code }) => code) : []

/** What an attacker reads on its end of a connection, until it ends. */
async function everythingSentTo(socket: TLSSocket): Promise<Buffer> {
  const chunks: Buffer[] = []
  socket.on('data', (bytes: Buffer) => chunks.push(bytes)).on('end', () => socket.end())
  if (!socket.destroyed) await once(socket, 'close')
  return Buffer.concat(chunks)
}
function frameTypesIn(bytes: Buffer): string[] {
  const names = Object.keys(frameTypes)
  const types: string[] = []
  for (let rest = bytes; rest.length > 0; rest = rest.subarray(3 + rest.readUInt16BE(1)))
    types.push(names[rest[0]! - 1] ?? 'application')
  return types
}
const frame = (type: keyof typeof frameTypes, body: Uint8Array) =>
  Buffer.concat([Buffer.of(frameTypes[type], body.length >> 8, body.length & 255), body])
const helloOf = (role: 1 | 2) => frame('hello', Buffer.concat([Buffer.of(1, role), randomBytes(32), jobDigest]))

test('server and worker attest each other; then, and only then, the application speaks', async () => {
  const pair = await connected(server.identity(), worker.identity())
  const [atServer, atClient] = await meetBoth(pair, server, worker)
  for (const outcome of [atServer!, atClient!]) {
    if (!('peer' in outcome)) throw outcome.error
    expect(outcome.peer.root).toBe('simulated')
    expect(outcome.peer.evidence.measurements.mrEnclave).toBe(codeDigest('cloister'))
    expect(outcome.peer.evidence.tcbStatus).toBe('UpToDate')
  }
  for (const socket of [pair.server, pair.client]) {
    if (socket.readableLength === 0) await once(socket, 'readable')
    expect(String(socket.read())).toBe('application')
  }
})

describe('a man in the middle', () => {
  test('with a valid enclave of its own, running other code', async () => {
    const enclave = { mrEnclave: codeDigest('man in the middle') }
    const policy = testPolicy(authority, { enclave: { mrEnclave: [codeDigest('cloister')] } })
    const inTheMiddle = await testCredentials(authority, 'server', { enclave, policy })
    const pair = await connected(inTheMiddle.identity(), worker.identity())
    const read = everythingSentTo(pair.server)
    const outcome = await meet(pair.client, worker, 'client')
    expect(codes([outcome])).toEqual(['policy-refused'])
    expect(reasons(outcome)).toEqual(['measurement-mismatch'])
    expect(frameTypesIn(await read)).toEqual(['refused'])
    inTheMiddle.close()
  })

  test('with the stolen keys of both sides, relaying the exchange', async () => {
    const toWorker = await connected(server.identity(), worker.identity())
    const toServer = await connected(server.identity(), worker.identity())
    toWorker.server.pipe(toServer.client).pipe(toWorker.server)
    const seen: Buffer[] = []
    for (const socket of [toWorker.server, toServer.client]) socket.on('data', (bytes: Buffer) => seen.push(bytes))
    const outcomes = await Promise.all([
      meet(toServer.server, server, 'server'),
      meet(toWorker.client, worker, 'client'),
    ])
    // Whoever is faster refuses; the other one refuses too, or reads that it was refused.
    expect(codes(outcomes)).toContain('ratls-quote-not-fresh')
    expect(codes(outcomes)).not.toContain('attested')
    expect(Buffer.concat(seen).includes('application')).toBe(false)
  })
})

describe('a replayed certificate: the thief has its key, and no enclave', () => {
  test.each([
    [
      'with the quote from the certificate',
      () => parseCertificateEvidence(splitPem(worker.identity().certificate.trimEnd())[0]!).quote.raw,
    ],
    ['with a quote over nothing', () => randomBytes(4000)],
  ])('%s', async (_title, quote) => {
    const pair = await connected(server.identity(), worker.identity())
    const read = everythingSentTo(pair.client)
    pair.client.write(helloOf(2))
    pair.client.write(frame('quote', quote()))
    pair.client.write(frame('accepted', Buffer.alloc(0)))
    const outcome = await meet(pair.server, server, 'server')
    expect(codes([outcome])[0]).toMatch(/^(ratls-quote-not-fresh|quote-.*)$/)
    expect(frameTypesIn(await read)).toEqual(['hello', 'quote', 'refused'])
  })
})

describe('§6.35 worker quote as server (role)', () => {
  test('a worker to which another worker connects as if to a server', async () => {
    const impostor = await testCredentials(authority, 'worker')
    const pair = await connected(impostor.identity(), worker.identity())
    const outcomes = await meetBoth(pair, impostor, worker)
    expect(codes(outcomes)).toEqual(['ratls-role-mismatch', 'ratls-role-mismatch'])
    impostor.close()
  })

  test('a worker that claims in its hello to be a server', async () => {
    const pair = await connected(worker.identity(), worker.identity())
    pair.server.write(helloOf(1))
    pair.server.write(frame('quote', await (await testEnclave(authority)).quote(randomBytes(64))))
    const read = everythingSentTo(pair.server)
    expect(codes([await meet(pair.client, worker, 'client')])).toEqual(['ratls-quote-not-fresh'])
    expect(frameTypesIn(await read)).toEqual(['hello', 'quote', 'refused'])
  })
})

describe('§6.36 one side unattested', () => {
  let quotes = 0
  let countingServer: AttestedCredentials
  let countingWorker: AttestedCredentials
  beforeAll(async () => {
    const platform = await testEnclave(authority)
    const counted = (reportData: Uint8Array) => {
      quotes++
      return platform.quote(reportData)
    }
    const counting = { ...platform, quote: counted }
    countingServer = await testCredentials(authority, 'server', { platform: counting })
    countingWorker = await testCredentials(authority, 'worker', { platform: counting })
    expect(quotes).toBe(4)
  })

  test.each(['client', 'server'] as const)('the %s has a plain certificate', async (unattested) => {
    const stranger = plainIdentity()
    const quotesBefore = quotes
    const judge = unattested === 'client' ? countingServer : countingWorker
    const pair =
      unattested === 'client'
        ? await connected(judge.identity(), stranger)
        : await connected(stranger, judge.identity())
    const read = everythingSentTo(pair[unattested])
    const other = unattested === 'client' ? 'server' : 'client'
    expect(codes([await meet(pair[other], judge, other)])).toEqual(['ratls-evidence-absent'])
    // Told why; not even a hello, and no quote was made for a stranger.
    expect(frameTypesIn(await read)).toEqual(['refused'])
    expect(quotes).toBe(quotesBefore)
  })
})

describe('§6.37 TLS resumption skipping verification', () => {
  test('a resumed session', async () => {
    // Small certificates: Node does not resume sessions that hold one with a quote.
    const ends = [plainIdentity(), plainIdentity()] as const
    const options = { server: { ticketKeys: Buffer.alloc(48, 1) } }
    const first = await connected(...ends, options)
    const [session] = (await once(first.client.resume(), 'session')) as [Buffer]
    const resumed = await connected(...ends, { ...options, client: { session } })
    expect(resumed.server.isSessionReused()).toBe(true)
    const certificate = first.server.getPeerX509Certificate()!
    const { signal } = new AbortController()
    for (const side of ['server', 'client'] as const) {
      const judged = (side === 'server' ? server : worker).authenticate(
        { socket: resumed[side], certificate, side, identity: server.identity() },
        signal,
      )
      await expect(judged).rejects.toMatchObject({ code: 'ratls-channel-unsuitable' })
    }
  })

  test('TLS 1.2', async () => {
    const old = { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as const
    const pair = await connected(server.identity(), worker.identity(), { server: old, client: old })
    expect(codes(await meetBoth(pair, server, worker))).toEqual([
      'ratls-channel-unsuitable',
      'ratls-channel-unsuitable',
    ])
  })
})

test('§6.38 data before verification is not read as anything but the exchange', async () => {
  const pair = await connected(server.identity(), worker.identity())
  pair.client.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
  const read = everythingSentTo(pair.client)
  expect(codes([await meet(pair.server, server, 'server')])).toEqual(['ratls-exchange-malformed'])
  expect(frameTypesIn(await read)).toEqual(['hello', 'refused'])
})

describe('§6.39 other channel', () => {
  test('a certificate from one enclave, a fresh quote from another that the policy accepts as well', async () => {
    const two = [codeDigest('cloister'), codeDigest('cloister 2')]
    const policy = testPolicy(authority, { enclave: { mrEnclave: two } })
    const careful = await testCredentials(authority, 'server', { policy })
    const [one, other] = await Promise.all(two.map((mrEnclave) => testEnclave(authority, { mrEnclave })))
    let made = 0
    const platform = { ...one!, quote: (reportData: Uint8Array) => (made++ < 2 ? one! : other!).quote(reportData) }
    const changing = await testCredentials(authority, 'worker', { policy, platform })
    const pair = await connected(careful.identity(), changing.identity())
    expect(codes(await meetBoth(pair, careful, changing))[0]).toBe('ratls-enclave-changed')
    careful.close()
    changing.close()
  })
})

describe('what the policy does not accept', () => {
  test.each([
    ['debug', ['debug-enclave']],
    ['out-of-date', ['tcb-status-unaccepted', 'advisory-unaccepted']],
  ])('%s', async (variant, expected) => {
    const other = await testAuthority({ seed: 5 })
    await other.setVariants([`${variant}@weak`])
    const weak = await testCredentials(other, 'worker', { enclave: { machine: { name: 'weak', ca: 'platform' } } })
    const strict = await testCredentials(other, 'server')
    const pair = await connected(strict.identity(), weak.identity())
    const [outcome] = await meetBoth(pair, strict, weak)
    expect(reasons(outcome!)).toEqual(expect.arrayContaining(expected.slice(0, 1)))
    weak.close()
    strict.close()
  })

  test('§6.12 an expired certificate', async () => {
    const tomorrow = new MonotonicClock(() => testNow.getTime() + 25 * 3_600_000)
    const later = await testCredentials(authority, 'server', { clock: tomorrow })
    const pair = await connected(later.identity(), worker.identity())
    expect(codes(await meetBoth(pair, later, worker))[0]).toBe('ratls-certificate-expired')
    later.close()
  })

  test('the root of another authority', async () => {
    const stranger = await testCredentials(await testAuthority({ seed: 6 }), 'worker')
    const pair = await connected(server.identity(), stranger.identity())
    expect(codes(await meetBoth(pair, server, stranger))).toEqual(['chain-untrusted-root', 'chain-untrusted-root'])
    stranger.close()
  })

  // The shorter the deadline, the more of what the peer sent is unread when it passes: it must read why all the same.
  test.each([1, 50])('a collateral service that hangs for more than %i ms', async (exchangeTimeoutMs) => {
    const waiting = await testCredentials(authority, 'server', {
      collateral: { collateralFor: () => new Promise(() => {}) },
      limits: { exchangeTimeoutMs },
    })
    const pair = await connected(waiting.identity(), worker.identity())
    expect(codes(await meetBoth(pair, waiting, worker))).toEqual(['ratls-exchange-timeout', 'ratls-refused-by-peer'])
    waiting.close()
  })
})

describe('re-verification when collateral changes', () => {
  async function attestedPeer(of: SimulatedAuthority) {
    const collateral = { collateralFor: async () => testCollateral(of) }
    const [one, two] = await Promise.all([testCredentials(of, 'server', { collateral }), testCredentials(of, 'worker')])
    const pair = await connected(one.identity(), two.identity())
    const [outcome] = await meetBoth(pair, one, two)
    if (!outcome || !('peer' in outcome)) throw new Error('not attested')
    for (const credentials of [one, two]) credentials.close()
    return { credentials: one, peer: outcome.peer }
  }

  test('unchanged: the peer stays, with newer evidence, and can be asked again', async () => {
    const { credentials, peer } = await attestedPeer(authority)
    const again = await credentials.reverify(peer)
    expect(again.evidence.measurements).toEqual(peer.evidence.measurements)
    expect((await credentials.reverify(again)).root).toBe('simulated')
    expect(credentials.quoteOf(again)).toBe(credentials.quoteOf(peer))
  })

  test.each([
    ['tcb-recovery', 'policy-refused'],
    ['revoked-pck@default', 'certificate-revoked'],
    ['revoked-ca', 'certificate-revoked'],
  ])('%s: dropped with %s', async (variant, code) => {
    const other = await testAuthority({ seed: 7 })
    const { credentials, peer } = await attestedPeer(other)
    await other.setVariants([variant])
    await expect(credentials.reverify(peer)).rejects.toMatchObject({ code })
  })
})

describe('renewal', () => {
  test('new handshakes show a new key; open connections and handshakes under way go on', async () => {
    const renewing = await testCredentials(authority, 'server')
    const before = renewing.identity()
    const established = await connected(before, worker.identity())
    expect(codes(await meetBoth(established, renewing, worker))).toEqual(['attested', 'attested'])
    const underWay = await connected(before, worker.identity())
    await renewing.renew()
    expect(renewing.identity().privateKey).not.toBe(before.privateKey)
    expect(codes(await meetBoth(underWay, renewing, worker))).toEqual(['attested', 'attested'])
    const after = await connected(renewing.identity(), worker.identity())
    expect(codes(await meetBoth(after, renewing, worker))).toEqual(['attested', 'attested'])
    established.client.resume()
    established.server.write('still here')
    if (established.client.readableLength === 0) await once(established.client, 'data')
    expect(established.client.destroyed).toBe(false)
    renewing.close()
  })

  test('happens by itself, is tried again when it failed, and says so', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const platform = await testEnclave(authority)
      let broken = false
      const quote = async (reportData: Uint8Array) => {
        if (broken) throw new Error('no quoting enclave')
        return platform.quote(reportData)
      }
      const events: CloisterEvent[] = []
      const limits = { lifetimeMs: 9000, renewalRetryMs: 100 }
      const report = (event: CloisterEvent): void => void events.push(event)
      const credentials = await testCredentials(authority, 'server', {
        platform: { ...platform, quote },
        limits,
        report,
      })
      const first = credentials.identity()
      await vi.advanceTimersByTimeAsync(5999)
      expect(credentials.identity()).toBe(first)
      broken = true
      await vi.advanceTimersByTimeAsync(1)
      await vi.waitFor(() => expect(events).toHaveLength(1))
      expect(events[0]).toMatchObject({ kind: 'warning', error: { message: 'no quoting enclave' } })
      expect(credentials.identity()).toBe(first)
      broken = false
      await vi.advanceTimersByTimeAsync(100)
      await vi.waitFor(() => expect(credentials.identity()).not.toBe(first))
      // Closed while a renewal is under way: it ends, and none follows.
      const second = credentials.identity()
      vi.advanceTimersByTime(6000)
      credentials.close()
      await vi.waitFor(() => expect(credentials.identity()).not.toBe(second))
      await new Promise((resolve) => setImmediate(resolve))
      expect(vi.getTimerCount()).toBe(0)
    } finally {
      vi.useRealTimers()
    }
  })
})
