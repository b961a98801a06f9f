/** RA-TLS under the real transport: who gets a connection, who is told what, and what strangers can put on the wire. */
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { testCredentials } from '../../test/attested-credentials.ts'
import { message, talk } from '../../test/contracts/echo.ts'
import { codeDigest, testAuthority } from '../../test/simulated.ts'
import { plainIdentity } from '../../test/tls-pair.ts'
import type { SimulatedAuthority } from '../attestation/platforms/simulated-authority.ts'
import type { AttestedPeer } from '../attestation/policy.ts'
import { CodedError } from '../errors.ts'
import { connect } from '../transport/client.ts'
import type { Listener } from '../transport/connection.ts'
import { listen } from '../transport/server.ts'
import { applicationProtocol } from '../transport/tls.ts'
import { frameTypes as transportTypes } from '../transport/wire-frames.ts'
import type { AttestedCredentials } from './credentials.ts'
import { frameTypes } from './frame-socket.ts'

let authority: SimulatedAuthority
const made: AttestedCredentials[] = []
async function credentialsOf(
  ...options: Parameters<typeof testCredentials> extends [unknown, ...infer Rest] ? Rest : never
) {
  const credentials = await testCredentials(authority, ...options)
  made.push(credentials)
  return credentials
}
let server: AttestedCredentials
let worker: AttestedCredentials
beforeAll(async () => {
  authority = await testAuthority()
  server = await credentialsOf('server')
  worker = await credentialsOf('worker')
})
afterAll(() => {
  for (const credentials of made) credentials.close()
})

let listener: Listener<AttestedPeer, unknown, unknown>
let accepted: AttestedPeer[]
let refused: string[]
beforeEach(async () => {
  accepted = []
  refused = []
  const listening = await listen({
    host: '127.0.0.1',
    port: 0,
    credentials: server,
    method: talk,
    onRefused: (_address, error) => refused.push(error instanceof CodedError ? error.code : String(error)),
  })
  listener = listening
  void (async () => {
    for await (const connection of listening.connections) {
      accepted.push(connection.peer)
      for await (const { value } of connection.incoming) await connection.send(message(value))
      await connection.close()
    }
  })()
})
afterEach(() => listener.close())
const port = () => Number(listener.address.split(':').at(-1))
const connectAs = (credentials: AttestedCredentials) =>
  connect({ host: '127.0.0.1', port: port(), credentials, method: talk })
const codeOf = async (attempt: Promise<unknown>): Promise<string> =>
  attempt.then(
    () => 'connected',
    (error: unknown) => (error instanceof CodedError ? error.code : String(error)),
  )
const untilRefused = async (): Promise<string[]> => {
  while (refused.length === 0) await new Promise((resolve) => setImmediate(resolve))
  return refused
}

test('messages flow between attested peers', async () => {
  const connection = await connectAs(worker)
  expect(connection.peer.evidence.measurements.mrEnclave).toBe(codeDigest('cloister'))
  await connection.send(message('hello'))
  for await (const { value } of connection.incoming) {
    expect(String(Buffer.from(value))).toBe('hello')
    break
  }
  expect(accepted).toHaveLength(1)
  expect(refused).toEqual([])
  await connection.close()
})

describe('refused, each side with its reason', () => {
  test('§6.35 a worker whose server is a worker', async () => {
    const impostor = await credentialsOf('server')
    expect(await codeOf(connectAs(impostor))).toBe('ratls-role-mismatch')
    expect(await untilRefused()).toEqual(['ratls-role-mismatch'])
  })

  test('another job', async () => {
    const other = await credentialsOf('worker', { jobDigest: Buffer.alloc(32, 9) })
    expect(await codeOf(connectAs(other))).toBe('ratls-job-mismatch')
    expect(await untilRefused()).toEqual(['ratls-job-mismatch'])
  })

  test('other code', async () => {
    const enclave = { mrEnclave: codeDigest('other code') }
    const other = await credentialsOf('worker', { enclave })
    expect(await codeOf(connectAs(other))).toBe('policy-refused')
    expect((await untilRefused())[0]).toMatch(/^(policy-refused|ratls-refused-by-peer)$/)
  })
  afterEach(() => expect(accepted).toEqual([]))
})

describe('§6.36 strangers get no byte of the application', () => {
  const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
  const stranger = plainIdentity()
  async function received(options: object): Promise<Buffer> {
    const socket: TLSSocket = connectTls({
      host: '127.0.0.1',
      port: port(),
      ALPNProtocols: [applicationProtocol],
      rejectUnauthorized: false,
      ...options,
    })
    const chunks: Buffer[] = []
    socket.on('data', (bytes: Buffer) => chunks.push(bytes))
    socket.on('error', () => {})
    socket.on('secureConnect', () => socket.write(preface))
    await new Promise((resolve) => socket.on('close', resolve))
    return Buffer.concat(chunks)
  }
  test.each<[string, () => object, string]>([
    [
      'an unattested certificate',
      () => ({ cert: stranger.certificate, key: stranger.privateKey }),
      'ratls-evidence-absent',
    ],
    ['a stripped client certificate', () => ({}), 'certificate-missing'],
    ['TLS 1.2', () => ({ maxVersion: 'TLSv1.2' }), 'handshake-failed'],
    [
      'a replayed certificate',
      () => ({ cert: worker.identity().certificate, key: worker.identity().privateKey }),
      'ratls-exchange-malformed',
    ],
  ])('%s', async (_title, options, code) => {
    const bytes = await received(options())
    expect(await untilRefused()).toEqual([code])
    expect(['hello', 'refused', 'end']).toEqual(expect.arrayContaining(kindsIn(bytes)))
    expect(accepted).toEqual([])
  })
})

/** Frames of the exchange (a length of two bytes), and the transport's, which says why it refuses. */
function kindsIn(bytes: Buffer): string[] {
  const kinds: string[] = []
  for (let rest = bytes; rest.length > 0; ) {
    const ofTransport = Object.values(transportTypes).some((type) => type === rest[0])
    const [kind] = Object.entries(ofTransport ? transportTypes : frameTypes).find(([, type]) => type === rest[0]) ?? []
    kinds.push(kind ?? `unknown ${rest[0]}`)
    rest = rest.subarray(ofTransport ? 5 + rest.readUInt32BE(1) : 3 + rest.readUInt16BE(1))
  }
  return kinds
}
