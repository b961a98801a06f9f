import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type { TLSSocket } from 'node:tls'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { plainIdentity, type TlsPair, tlsPair } from '../../test/tls-pair.ts'
import { CodedError } from '../errors.ts'
import { publicKeyInfo } from '../x509/write.ts'
import {
  type AttestedRole,
  type Claimant,
  type ExchangeOptions,
  exchangeQuotes,
  exporterLabel,
  refusePeer,
  statement,
} from './attestation-exchange.ts'
import { withDeadline } from './deadline.ts'
import { frameTypes } from './frame-socket.ts'

const [serverIdentity, clientIdentity] = [plainIdentity(), plainIdentity()]
const keyHash = ({ certificate }: { certificate: string }) =>
  createHash('sha256')
    .update(publicKeyInfo(new X509Certificate(certificate).publicKey))
    .digest()
const [serverKeyHash, clientKeyHash] = [keyHash(serverIdentity), keyHash(clientIdentity)]
const jobDigest = createHash('sha256').update('job').digest()
const never = new AbortController().signal

let pair: TlsPair
beforeEach(async () => {
  pair = await tlsPair(serverIdentity, clientIdentity)
})
afterEach(() => pair[Symbol.asyncDispose]())
async function reconnect(): Promise<void> {
  await pair[Symbol.asyncDispose]()
  pair = await tlsPair(serverIdentity, clientIdentity)
}

/** A client without our code: writes these bytes, reads all, closes when the server does. */
function rawClient(...writes: Buffer[]): void {
  pair.client.on('end', () => pair.client.end()).resume()
  for (const bytes of writes) pair.client.write(bytes)
}

/** A quote that is its REPORTDATA, so that what is compared here is what the exchange binds. */
const quote = async (reportData: Uint8Array): Promise<Uint8Array> => Buffer.concat([Buffer.from('quote'), reportData])
const verify = async (quoted: Uint8Array, reportData: Uint8Array): Promise<string> => {
  if (!Buffer.from(quoted).equals(Buffer.from(await quote(reportData)))) throw new Error('another REPORTDATA')
  return 'proven'
}

type Overrides = Partial<ExchangeOptions<string>>
const server = (overrides: Overrides = {}): ExchangeOptions<string> => ({
  socket: pair.server,
  own: { role: 'server', nonce: randomBytes(32), publicKeyHash: serverKeyHash },
  peerRoles: ['worker'],
  peerPublicKeyHash: clientKeyHash,
  jobDigest,
  quote,
  verify,
  signal: never,
  ...overrides,
})
const client = (overrides: Overrides = {}): ExchangeOptions<string> => ({
  ...server(),
  socket: pair.client,
  own: { role: 'worker', nonce: randomBytes(32), publicKeyHash: clientKeyHash },
  peerRoles: ['server'],
  peerPublicKeyHash: serverKeyHash,
  ...overrides,
})

/** What the server and the client of a good exchange know of each other. */
const bothProven = [
  { proven: 'proven', role: 'worker' },
  { proven: 'proven', role: 'server' },
]

async function outcome(exchange: Promise<{ proven: string; role: AttestedRole }>): Promise<string> {
  try {
    const { proven, role } = await exchange
    return `${proven} ${role}`
  } catch (error) {
    return error instanceof CodedError ? error.code : String(error)
  }
}
const both = (serverOptions: Overrides = {}, clientOptions: Overrides = {}) =>
  Promise.all([
    outcome(exchangeQuotes(server(serverOptions)).catch(closing(pair.server))),
    outcome(exchangeQuotes(client(clientOptions)).catch(closing(pair.client))),
  ])
/** As the transport does. */
const closing = (socket: TLSSocket) => (error: unknown) => {
  socket.destroy()
  throw error
}

test('both sides prove themselves, and what follows the last frame is left for the application', async () => {
  const [one, two] = [exchangeQuotes(server()), exchangeQuotes(client())]
  // As early as it may: the server speaks in the same moment in which it is satisfied.
  void one.then(() => pair.server.write('application'))
  expect(await Promise.all([one, two])).toEqual(bothProven)
  if (pair.client.readableLength === 0) await once(pair.client, 'readable')
  expect(String(pair.client.read())).toBe('application')
  for (const socket of [pair.client, pair.server]) expect(socket.listenerCount('readable')).toBeLessThanOrEqual(1)
})

test('a quote that arrives a byte at a time', async () => {
  const slow = exchangeQuotes(server())
  const write = pair.client.write.bind(pair.client)
  let previous = Promise.resolve()
  pair.client.write = (bytes: string | Uint8Array): boolean => {
    previous = previous.then(async () => {
      for (const byte of Buffer.from(bytes as Uint8Array)) {
        write(Buffer.of(byte))
        await new Promise((resolve) => setImmediate(resolve))
      }
    })
    return true
  }
  expect(await Promise.all([slow, exchangeQuotes(client())])).toEqual(bothProven)
})

describe('§6.35 worker quote as server (role)', () => {
  test('a worker where a server is expected, and a server where a worker is', async () => {
    // The impostor is our own code in the worker's role, connecting to a worker as if it were the server.
    const impostor = { own: { role: 'worker', nonce: randomBytes(32), publicKeyHash: serverKeyHash } } as const
    expect(await both(impostor)).toEqual(['ratls-refused-by-peer', 'ratls-role-mismatch'])
  })

  test.each([0, 4, 255])('an unknown role: %i', async (role) => {
    const judged = outcome(exchangeQuotes(server({ peerRoles: ['server', 'worker', 'follower'] })))
    rawClient(frame('hello', Buffer.concat([Buffer.of(1, role), randomBytes(32), jobDigest])))
    expect(await judged).toBe('ratls-role-mismatch')
  })

  test('a worker that says it is a server: its enclave signs what it is, and that is refused', async () => {
    const challenger = client().own
    const own = { role: 'server', nonce: randomBytes(32), publicKeyHash: serverKeyHash } as const
    const signedAs = (role: AttestedRole) => async () => {
      const exporter = pair.server.exportKeyingMaterial(32, exporterLabel, Buffer.alloc(0))
      const stated = statement({ ...own, role }, challenger, exporter, jobDigest)
      return quote(Buffer.concat([createHash('sha256').update(stated).digest(), Buffer.alloc(32)]))
    }
    const refused = await both({ own, quote: signedAs('worker') }, { own: challenger })
    expect(refused).toEqual(['ratls-exchange-closed', 'Error: another REPORTDATA'])
    await reconnect()
    // The same construction with the true role is accepted, so the role was the reason.
    expect(await both({ own, quote: signedAs('server') }, { own: challenger })).toEqual([
      'proven worker',
      'proven server',
    ])
  })
})

describe('a job with several servers', () => {
  const follower = () => ({ role: 'follower', nonce: randomBytes(32), publicKeyHash: clientKeyHash }) as const
  const leading = { peerRoles: ['worker', 'follower'] } as const

  test.each(['worker', 'follower'] as const)('a server learns that its peer is a %s', async (role) => {
    const own = { ...follower(), role }
    expect(await both(leading, { own })).toEqual([`proven ${role}`, 'proven server'])
  })

  test('a follower where only a server may be, which is what a worker expects', async () => {
    const own = { ...follower(), publicKeyHash: serverKeyHash }
    expect(await both({ own })).toEqual(['ratls-refused-by-peer', 'ratls-role-mismatch'])
  })

  test('a follower where only workers may be', async () => {
    expect(await both({}, { own: follower() })).toEqual(['ratls-role-mismatch', 'ratls-refused-by-peer'])
  })

  test('a server that connects to a server', async () => {
    const own = { ...follower(), role: 'server' } as const
    expect(await both(leading, { own })).toEqual(['ratls-role-mismatch', 'ratls-refused-by-peer'])
  })

  test.each([
    ['worker', 'follower'],
    ['follower', 'worker'],
  ] as const)('a %s whose host says that it is a %s: its enclave signs what it is', async (truly, said) => {
    const challenger = server().own
    const own = { ...follower(), role: said }
    const signedAs = (role: AttestedRole) => async () => {
      const exporter = pair.client.exportKeyingMaterial(32, exporterLabel, Buffer.alloc(0))
      const stated = statement({ ...own, role }, challenger, exporter, jobDigest)
      return quote(Buffer.concat([createHash('sha256').update(stated).digest(), Buffer.alloc(32)]))
    }
    const refused = await both({ ...leading, own: challenger }, { own, quote: signedAs(truly) })
    expect(refused).toEqual(['Error: another REPORTDATA', 'ratls-exchange-closed'])
    await reconnect()
    // The same construction with the role that was said is accepted, so the role was the reason.
    const accepted = await both({ ...leading, own: challenger }, { own, quote: signedAs(said) })
    expect(accepted).toEqual([`proven ${said}`, 'proven server'])
  })
})

test('jobs that differ are refused on both sides', async () => {
  const other = createHash('sha256').update('another job').digest()
  expect(await both({}, { jobDigest: other })).toEqual(['ratls-job-mismatch', 'ratls-job-mismatch'])
})

describe('§6.36 one side unattested', () => {
  test('a peer that speaks HTTP/2 at once', async () => {
    const judged = outcome(exchangeQuotes(server()))
    rawClient(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'))
    expect(await judged).toBe('ratls-exchange-malformed')
  })

  test('a peer that accepts without having proven anything', async () => {
    const judged = outcome(exchangeQuotes(server()))
    const hello = frame('hello', Buffer.concat([Buffer.of(1, 2), randomBytes(32), jobDigest]))
    rawClient(hello, frame('accepted', Buffer.alloc(0)))
    expect(await judged).toBe('ratls-exchange-malformed')
  })

  test('a peer whose quote is refused is told why, and never gets `accepted`', async () => {
    const refusing = new CodedErrorForTest('test-refused', 'expected better', { hint: '' })
    const verifying = server({ verify: async () => Promise.reject(refusing) })
    const received: Buffer[] = []
    const judged = outcome(exchangeQuotes(verifying))
    pair.client.on('data', (bytes: Buffer) => received.push(bytes))
    const hello = frame('hello', Buffer.concat([Buffer.of(1, 2), randomBytes(32), jobDigest]))
    rawClient(hello, frame('quote', Buffer.from('quote')))
    expect(await judged).toBe('test-refused')
    const frames = framesIn(Buffer.concat(received))
    expect(frames.map(({ type }) => type)).toEqual([frameTypes.hello, frameTypes.quote, frameTypes.refused])
    expect(String(frames.at(-1)!.body)).toBe('test-refused\nexpected better')
  })
})

describe("§6.39 replayed nonce, other channel's exporter", () => {
  test('a quote from another connection between the same peers', async () => {
    const recorded: Uint8Array[] = []
    const recording = async (reportData: Uint8Array) => {
      recorded.push(await quote(reportData))
      return recorded[0]!
    }
    const nonce = randomBytes(32)
    const own = { role: 'worker', nonce, publicKeyHash: clientKeyHash } as const
    const challenger = { role: 'server', nonce, publicKeyHash: serverKeyHash } as const
    expect(await both({ own: challenger }, { own, quote: recording })).toEqual(['proven worker', 'proven server'])
    await reconnect()
    // Same keys, same job, even the same nonces: only the channel differs.
    const replayed = await both({ own: challenger }, { own, quote: async () => recorded[0]! })
    expect(replayed).toEqual(['Error: another REPORTDATA', 'ratls-exchange-closed'])
  })

  test('a quote for another nonce', async () => {
    const own = client().own
    const exporter = pair.client.exportKeyingMaterial(
      32,
      'EXPERIMENTAL cloister attestation exchange v1',
      Buffer.alloc(0),
    )
    const challenger: Claimant = { role: 'server', nonce: Buffer.alloc(32), publicKeyHash: serverKeyHash }
    const stale = createHash('sha256')
      .update(statement(own, challenger, exporter, jobDigest))
      .digest()
    const options = { own, quote: async () => quote(Buffer.concat([stale, Buffer.alloc(32)])) }
    expect(await both({}, options)).toEqual(['Error: another REPORTDATA', 'ratls-exchange-closed'])
    await reconnect()
    // The same construction with the right nonce is accepted, so the nonce was the reason.
    expect(await both()).toEqual(['proven worker', 'proven server'])
  })

  test('our own quote, sent back', async () => {
    const judged = outcome(exchangeQuotes(server()))
    const echo = (bytes: Buffer): void => {
      for (const { type, body, whole } of framesIn(bytes))
        if (type === frameTypes.hello)
          pair.client.write(frame('hello', Buffer.concat([Buffer.of(1, 2), body.subarray(2)])))
        else pair.client.write(whole)
    }
    pair.client.on('data', echo)
    expect(await judged).toBe('Error: another REPORTDATA')
  })
})

describe('bounds', () => {
  test.each<[string, Buffer, string]>([
    ['a frame too long for its type', Buffer.of(1, 0, 67), 'ratls-exchange-malformed'],
    ['another frame than is due', Buffer.of(2, 0, 1, 0), 'ratls-exchange-malformed'],
    ['an unknown frame', Buffer.of(9, 0, 0), 'ratls-exchange-malformed'],
    ['a hello too short', Buffer.of(1, 0, 2, 1, 2), 'ratls-exchange-malformed'],
    ['another version', frame('hello', Buffer.concat([Buffer.of(2, 2), Buffer.alloc(64)])), 'ratls-exchange-malformed'],
    ['a refusal too long', Buffer.of(4, 4, 1), 'ratls-exchange-malformed'],
    ['a refusal', Buffer.concat([Buffer.of(4, 0, 5), Buffer.from('no\nno')]), 'ratls-refused-by-peer'],
  ])('%s', async (_title, bytes, code) => {
    const judged = outcome(exchangeQuotes(server()))
    rawClient(bytes)
    expect(await judged).toBe(code)
  })

  test('a refusal cannot write to our terminal', async () => {
    const judged = exchangeQuotes(server())
    rawClient(frame('refused', Buffer.from('code\nx\x1b[31my€\r')))
    await expect(judged).rejects.toThrow('the peer refused us: code: x?[31my??')
  })

  test.each(['end', 'destroy'] as const)('the peer goes away: %s', async (how) => {
    const judged = outcome(exchangeQuotes(server()))
    pair.client[how]()
    expect(await judged).toBe('ratls-exchange-closed')
  })

  test.each(['a silent peer', 'a platform that hangs', 'a verification that hangs'])(
    'the deadline ends %s',
    async (what) => {
      const { signal, release } = withDeadline(never, 30)
      const hang = () => new Promise<never>(() => {})
      const options = what.includes('platform')
        ? { quote: hang }
        : what.includes('verification')
          ? { verify: hang }
          : {}
      const judged = outcome(exchangeQuotes(server({ ...options, signal })))
      if (options !== undefined && what !== 'a silent peer') void outcome(exchangeQuotes(client()))
      expect(await judged).toBe('ratls-exchange-timeout')
      release()
    },
  )

  test('the caller gives up', async () => {
    const controller = new AbortController()
    const judged = outcome(exchangeQuotes(server({ signal: controller.signal })))
    controller.abort()
    expect(await judged).toBe('ratls-exchange-cancelled')
  })

  test('any bytes: refused with a code', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 3, maxLength: 300 }), async (bytes) => {
        const fresh = await tlsPair(serverIdentity, clientIdentity)
        const judged = outcome(exchangeQuotes(server({ socket: fresh.server })))
        fresh.client.resume().end(bytes)
        expect(await judged).toMatch(/^ratls-/)
        await fresh[Symbol.asyncDispose]()
      }),
      { numRuns: 40 },
    )
  })
})

test('a peer refused before the exchange reads why instead of our hello', async () => {
  const refusing = new CodedErrorForTest('test-refused', 'expected a better certificate', { hint: '' })
  const [, judged] = await Promise.all([
    refusePeer(pair.server, never, refusing),
    exchangeQuotes(client()).catch((error: unknown) => error),
  ])
  expect(judged).toMatchObject({ code: 'ratls-refused-by-peer', message: expect.stringContaining('test-refused') })
})

class CodedErrorForTest extends CodedError<'test-refused'> {}

function frame(type: keyof typeof frameTypes, body: Buffer): Buffer {
  const header = Buffer.alloc(3)
  header[0] = frameTypes[type]
  header.writeUInt16BE(body.length, 1)
  return Buffer.concat([header, body])
}

function framesIn(bytes: Buffer): { type: number; body: Buffer; whole: Buffer }[] {
  const frames = []
  for (let rest = bytes; rest.length > 0; ) {
    const size = 3 + rest.readUInt16BE(1)
    frames.push({ type: rest[0]!, body: rest.subarray(3, size), whole: rest.subarray(0, size) })
    rest = rest.subarray(size)
  }
  return frames
}
