import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { generateX25519Identity } from 'age-encryption'
import { afterEach, describe, expect, test } from 'vitest'
import { jobDigest, testCredentials, testPolicy } from '../../test/attested-credentials.ts'
import {
  codeDigest,
  scratchDirectory,
  testAuthority,
  testCollateral,
  testEnclave,
  testNow,
} from '../../test/simulated.ts'
import { plainIdentity } from '../../test/tls-pair.ts'
import { MonotonicClock } from '../attestation/validity.ts'
import { CodedError } from '../errors.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { formatEvent } from '../observability/log.ts'
import { PeerJudge } from '../ratls/peer.ts'
import { generateOwnerKey, isSignedBy, parseOwnerKey } from './owner-key.ts'
import { type ProvisionOptions, provisionKey } from './provision.ts'
import { ProvisionedKeys, type WantedKey } from './provisioned-keys.ts'
import { receiveKey } from './provisioning-exchange.ts'
import { listenForKeys, type ProvisioningOptions } from './provisioning-listener.ts'

const authority = await testAuthority()
const collateral = await testCollateral(authority)
const platform = await testEnclave(authority)
const credentials = await testCredentials(authority, 'worker')
const owner = parseOwnerKey(generateOwnerKey(), 'owner.pem')
const stranger = parseOwnerKey(generateOwnerKey(), 'stranger.pem')
const publicKey = owner.publicKey.toString('base64')
const secret = Buffer.from(`${await generateX25519Identity()}\n`)
const never = new AbortController().signal

const wanted: readonly WantedKey[] = [
  { name: 'data', kind: 'age-identity', owners: [publicKey] },
  { name: 'checkpoint', kind: 'sealing-key', owners: [publicKey] },
  { name: 'theirs', kind: 'sealing-key', owners: [codeDigest('somebody else')] },
]

const opened: (() => unknown)[] = []
afterEach(async () => {
  for (const close of opened.splice(0)) await close()
})

interface Store {
  readonly key: number
  readonly jobDigest: Uint8Array
  readonly server: number
}

function keysIn(directory: string, report: (event: CloisterEvent) => void = () => {}, changes: Partial<Store> = {}) {
  const { key = 7, ...rest } = changes
  const context = { kind: 'worker-keys', jobDigest, server: 0, servers: 2, step: 0, ...rest }
  const sealing = { key: Buffer.alloc(32, key), context }
  return ProvisionedKeys.open({ wanted, store: { path: join(directory, 'keys.sealed'), sealing }, report })
}

async function enclave(changes: Partial<ProvisioningOptions> = {}) {
  const directory = scratchDirectory()
  const events: CloisterEvent[] = []
  const report = (event: CloisterEvent): void => void events.push(event)
  const keys = await keysIn(directory, report)
  const listener = await listenForKeys({
    ...{ host: '127.0.0.1', port: 0, role: 'worker', jobDigest, credentials, keys, report },
    quote: (reportData) => platform.quote(reportData),
    ...changes,
  })
  opened.push(() => listener.close())
  return { directory, events, keys, port: Number(listener.address.split(':')[1]) }
}

function hand(port: number, changes: Partial<ProvisionOptions> & { mrEnclave?: string } = {}) {
  const { mrEnclave = codeDigest('cloister'), ...rest } = changes
  const policy = testPolicy(authority, { enclave: { mrEnclave: [mrEnclave] } })
  const clock = new MonotonicClock(() => testNow.getTime())
  const judge = new PeerJudge({ policy, self: undefined, collateral: { collateralFor: async () => collateral }, clock })
  return provisionKey({
    ...{ host: '127.0.0.1', port, judge, now: () => testNow.getTime(), jobDigest, owner, name: 'data', secret },
    ...{ timeoutMs: 10_000, signal: never },
    ...rest,
  })
}

async function refusalOf(work: Promise<unknown>): Promise<CodedError> {
  try {
    await work
  } catch (thrown) {
    if (thrown instanceof CodedError) return thrown
    throw thrown
  }
  throw new Error('not refused')
}

/** What the enclave wrote down about the one connection that it refused. */
async function refusedBy({ events }: { events: CloisterEvent[] }): Promise<string> {
  for (let waits = 0; waits < 200; waits++) {
    for (const event of events) if (event.kind === 'peer-refused') return event.error.code
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('nothing was refused')
}

describe('an owner hands a key to an enclave', () => {
  test('which has it, keeps it sealed over a restart, and tells nobody', async () => {
    const { directory, events, keys, port } = await enclave()
    const waiting = keys.waitFor('data', { timeoutMs: 10_000, signal: never, address: 'a:1' })
    const { role, peer } = await hand(port)
    expect(role).toBe('worker')
    expect(peer.evidence.measurements.mrEnclave).toBe(codeDigest('cloister'))
    expect(Buffer.from(await waiting)).toEqual(secret)
    expect(keys.missing).toEqual(['checkpoint', 'theirs'])
    expect(events).toEqual([{ kind: 'key-provisioned', name: 'data', owner: publicKey }])

    const after = await keysIn(directory)
    expect(Buffer.from(await after.waitFor('data', { timeoutMs: 1, signal: never, address: 'a:1' }))).toEqual(secret)
    const everything = [readFileSync(join(directory, 'keys.sealed')).toString('latin1'), JSON.stringify(events)]
    everything.push(...events.map(formatEvent))
    for (const text of everything) {
      for (const form of ['latin1', 'hex', 'base64'] as const) {
        expect(text.toLowerCase()).not.toContain(secret.subarray(15, 45).toString(form).toLowerCase())
      }
    }
  })

  test('the same again is fine, another is refused', async () => {
    const { events, port } = await enclave()
    await hand(port)
    await hand(port)
    expect(events).toHaveLength(1)
    const other = Buffer.from(await generateX25519Identity())
    const refusal = await refusalOf(hand(port, { secret: other }))
    expect(refusal.code).toBe('ratls-refused-by-peer')
    expect(refusal.message).toContain('key-already-provisioned')
  })

  test.each([
    ['key-not-wanted', { name: 'nothing' }],
    ['key-not-wanted', { name: 'theirs', secret: Buffer.alloc(32) }],
    ['sealing-key-malformed', { name: 'checkpoint', secret: Buffer.alloc(31) }],
    ['age-identity-malformed', { secret: Buffer.from('AGE-SECRET-KEY-1NONE') }],
    ['key-owner-unknown', { owner: stranger }],
  ])('%s', async (code, changes) => {
    const it = await enclave()
    expect((await refusalOf(hand(it.port, changes))).message).toContain(code)
    expect(await refusedBy(it)).toBe(code)
    expect(it.keys.missing).toHaveLength(3)
    expect(existsSync(join(it.directory, 'keys.sealed'))).toBe(false)
  })

  test('for a stranger no quote is made', async () => {
    let quotes = 0
    const it = await enclave({
      quote: (reportData) => {
        quotes++
        return platform.quote(reportData)
      },
    })
    await refusalOf(hand(it.port, { owner: stranger }))
    await refusalOf(hand(it.port, { owner: { ...stranger, publicKey: owner.publicKey } }))
    expect(await refusedBy(it)).toBe('key-owner-unknown')
    expect(quotes).toBe(0)
    await hand(it.port)
    expect(quotes).toBe(1)
  })

  test('the port speaks nothing else, and one silent peer does not keep it', async () => {
    const it = await enclave()
    const silent = connectTcp(it.port, '127.0.0.1')
    const junk = connectTcp(it.port, '127.0.0.1', () => junk.write('GET / HTTP/1.1\r\n\r\n'))
    junk.on('error', () => {})
    expect(await refusedBy(it)).toBe('provision-handshake-failed')
    await hand(it.port)
    silent.destroy()
    expect((await refusalOf(hand(1))).code).toBe('provision-unreachable')
    expect((await refusalOf(hand(it.port, { name: 'Not A Name' }))).code).toBe('key-name-malformed')
    expect((await refusalOf(hand(it.port, { secret: Buffer.alloc(8001) }))).code).toBe('key-too-large')
    expect((await refusalOf(enclave({ port: it.port }))).code).toBe('provision-address-unusable')
  })
})

/** A server with some identity that runs `speak` and keeps all that owners send it. */
async function impostor(
  identity: { certificate: string; privateKey: string },
  speak: (socket: TLSSocket) => void = () => {},
) {
  const received: Buffer[] = []
  const server = createTlsServer(
    { cert: identity.certificate, key: identity.privateKey, ALPNProtocols: ['cloister-provisioning/1'] },
    (socket) => {
      socket.on('error', () => {})
      const emit = socket.push.bind(socket)
      socket.push = (chunk: Buffer | null) => {
        if (chunk !== null) received.push(Buffer.from(chunk))
        return emit(chunk)
      }
      socket.on('data', () => {}).pause()
      speak(socket)
    },
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  opened.push(() => server.close())
  return { port: (server.address() as AddressInfo).port, received: () => Buffer.concat(received) }
}

/** The frames of the exchange in what one side sent: types only. */
function frameTypes(bytes: Buffer): number[] {
  const types: number[] = []
  for (let at = 0; at + 3 <= bytes.length; at += 3 + bytes.readUInt16BE(at + 1)) types.push(bytes[at]!)
  return types
}

describe('an owner refuses before the key leaves', () => {
  const [hello, refused, proof, key] = [1, 4, 5, 6]
  const real = (socket: TLSSocket, changes: Partial<Parameters<typeof receiveKey>[0]> = {}) =>
    void receiveKey({
      ...{ socket, role: 'worker', jobDigest, publicKeyHash: credentials.identity().publicKeyHash },
      quote: (reportData) => platform.quote(reportData),
      isOwner: () => true,
      accept: async () => {
        throw new Error('a key came')
      },
      signal: never,
      ...changes,
    }).catch(() => {})

  test('sent to an enclave that it wants, the key is seen on this wire', async () => {
    const it = await impostor(credentials.identity(), (socket) => real(socket, { accept: async () => {} }))
    await hand(it.port)
    expect(frameTypes(it.received())).toEqual([hello, proof, key])
    expect(it.received().includes(secret)).toBe(true)
  })

  test('no enclave at all', async () => {
    const it = await impostor(plainIdentity(), (socket) => void socket.resume())
    expect((await refusalOf(hand(it.port))).code).toBe('ratls-evidence-absent')
    expect(frameTypes(it.received())).toEqual([refused])
  })

  test('code that the policy does not want', async () => {
    const it = await impostor(credentials.identity(), (socket) => void socket.resume())
    expect((await refusalOf(hand(it.port, { mrEnclave: codeDigest('another') }))).code).toBe('policy-refused')
    expect(frameTypes(it.received())).toEqual([refused])
  })

  test('the right code with another job', async () => {
    const other = createHash('sha256').update('another job').digest()
    const it = await impostor(credentials.identity(), (socket) => real(socket, { jobDigest: other }))
    expect((await refusalOf(hand(it.port))).code).toMatch(/ratls-(job-mismatch|refused-by-peer)/)
    expect(frameTypes(it.received())).not.toContain(key)
  })

  test('a thief of the certificate key who has no enclave to make a quote', async () => {
    const old = await platform.quote(Buffer.alloc(64, 3))
    const it = await impostor(credentials.identity(), (socket) => real(socket, { quote: async () => old }))
    expect((await refusalOf(hand(it.port))).code).toBe('ratls-quote-not-fresh')
    expect(frameTypes(it.received())).toEqual([hello, proof, refused])
  })

  test('a thief with an enclave of other code', async () => {
    const other = await testEnclave(authority, { mrEnclave: codeDigest('another') })
    const quote = (reportData: Uint8Array) => other.quote(reportData)
    const it = await impostor(credentials.identity(), (socket) => real(socket, { quote }))
    expect((await refusalOf(hand(it.port))).code).toBe('ratls-enclave-changed')
    expect(frameTypes(it.received())).toEqual([hello, proof, refused])
  })

  test('a relay with a stolen certificate key, between owner and enclave', async () => {
    const target = await enclave()
    const it = await impostor(credentials.identity(), (socket) => {
      const onward = connectTls({
        ...{ host: '127.0.0.1', port: target.port, rejectUnauthorized: false },
        ALPNProtocols: ['cloister-provisioning/1'],
      })
      onward.on('error', () => {})
      socket.pipe(onward).pipe(socket)
    })
    expect((await refusalOf(hand(it.port))).message).toContain('key-proof-invalid')
    expect(await refusedBy(target)).toBe('key-proof-invalid')
    expect(frameTypes(it.received())).toEqual([hello, proof])
  })
})

test('a recorded proof is worth nothing on another connection', async () => {
  const recorder = await impostor(credentials.identity(), (socket) => {
    // As the enclave greets: version, role worker, nonce, job.
    const greeting = Buffer.concat([Uint8Array.of(1, 0, 66, 1, 2), randomBytes(32), jobDigest])
    socket.write(greeting)
    socket.resume()
  })
  await refusalOf(hand(recorder.port, { timeoutMs: 500 }))
  const recorded = recorder.received()
  expect(frameTypes(recorded).slice(0, 2)).toEqual([1, 5])

  const target = await enclave()
  const socket = connectTls({
    ...{ host: '127.0.0.1', port: target.port, rejectUnauthorized: false },
    ALPNProtocols: ['cloister-provisioning/1'],
  })
  socket.on('error', () => {}).resume()
  await once(socket, 'secureConnect')
  socket.write(recorded.subarray(0, 3 + 66 + 3 + 96))
  expect(await refusedBy(target)).toBe('key-proof-invalid')
  socket.destroy()
})

describe('provisioned keys', () => {
  test('waiting ends in time, and says what the owner must run', async () => {
    const keys = await keysIn(scratchDirectory())
    const refusal = await refusalOf(keys.waitFor('data', { timeoutMs: 20, signal: never, address: 'worker0:7001' }))
    expect(refusal.code).toBe('key-not-provisioned')
    expect(refusal.message).toBe('expected the key data, got none within 0.02 s')
    expect(refusal.hint).toContain('cloister provision worker0:7001')
    const stopped = AbortSignal.abort('stopping')
    expect(await refusalOf(keys.waitFor('data', { timeoutMs: 1e6, signal: stopped, address: '' }))).toMatchObject({
      code: 'key-not-provisioned',
      message: 'expected the key data, got a stop while waiting for it',
    })
  })

  test('the file opens for this code, machine and job only, and not when a bit of it was changed', async () => {
    const directory = scratchDirectory()
    await (await keysIn(directory)).accept({ owner: publicKey, name: 'data', secret })
    const path = join(directory, 'keys.sealed')
    const whole = readFileSync(path)
    const damaged = { code: 'key-store-damaged' }
    for (const changes of [{ key: 8 }, { jobDigest: Buffer.alloc(32) }, { server: 1 }]) {
      await expect(keysIn(directory, undefined, changes)).rejects.toMatchObject(damaged)
    }
    for (let at = 0; at < whole.length; at += 3) {
      const changed = Buffer.from(whole)
      changed[at]! ^= 1
      writeFileSync(path, changed)
      await expect(keysIn(directory), `byte ${at}`).rejects.toMatchObject(damaged)
    }
    for (const length of [0, 10, 60, whole.length - 1]) {
      writeFileSync(path, whole.subarray(0, length))
      await expect(keysIn(directory), `cut at ${length}`).rejects.toMatchObject(damaged)
    }
    writeFileSync(path, whole)
    expect((await keysIn(directory)).missing).toEqual(['checkpoint', 'theirs'])
  })
})

describe('owner keys', () => {
  test('sign as RFC 8032 says', () => {
    // RFC 8032 §7.1, TEST 2.
    const seed = Buffer.from('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb', 'hex')
    const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed])
    const key = parseOwnerKey(
      `-----BEGIN PRIVATE KEY-----\n${der.toString('base64')}\n-----END PRIVATE KEY-----\n`,
      'k',
    )
    expect(key.publicKey.toString('hex')).toBe('3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c')
    const signature =
      '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00'
    expect(key.sign(Buffer.from('72', 'hex')).toString('hex')).toBe(signature)
    expect(isSignedBy(key.publicKey, Buffer.from('72', 'hex'), Buffer.from(signature, 'hex'))).toBe(true)
    expect(isSignedBy(key.publicKey, Buffer.from('73', 'hex'), Buffer.from(signature, 'hex'))).toBe(false)
    expect(isSignedBy(Buffer.alloc(31), Buffer.from('72', 'hex'), Buffer.from(signature, 'hex'))).toBe(false)
  })

  test('are read from PEM, and never quoted', () => {
    const rsa = plainIdentity().privateKey
    for (const text of ['', 'hello', generateOwnerKey().replace('M', '!'), rsa]) {
      expect(() => parseOwnerKey(text, 'k.pem')).toThrow(expect.objectContaining({ code: 'owner-key-malformed' }))
    }
  })
})
