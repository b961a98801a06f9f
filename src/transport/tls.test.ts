import { randomBytes } from 'node:crypto'
import { request } from 'node:https'
import { connect as connectTcp } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { describe, expect, onTestFinished, test } from 'vitest'
import { message, talk } from '../../test/contracts/echo.ts'
import {
  connectWorker,
  rawPeer,
  rawTls,
  serverCredentials,
  serverIdentity,
  startRelay,
  startServer,
  strangerIdentity,
  workerCredentials,
  workerIdentity,
} from '../../test/contracts/pinned.ts'
import { codeOf, next } from '../../test/contracts/transport-harness.ts'
import { createPinnedIdentity, pinnedCredentials } from '../../test/support/pinned.ts'
import { connect } from './client.ts'
import { encodeFrame } from './frame.ts'
import { applicationProtocol, verifySession } from './tls.ts'
import { creditFrame, frameTypes } from './wire-frames.ts'

/** Whatever was tried, a good peer still gets through. */
async function stillServes(server: Awaited<ReturnType<typeof startServer>>): Promise<void> {
  const [client, accepted] = await Promise.all([connectWorker(server.port), server.accept()])
  await client.send(message('good'))
  expect(await next(accepted)).toHaveLength(4)
  client.destroy()
}

function closed(socket: { once(event: 'close', listener: () => void): unknown }): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}

describe('a server refuses', () => {
  test.each(['TLSv1.2', 'TLSv1.1'] as const)('%s', async (version) => {
    const server = await startServer()
    const socket = rawTls(server.port, { maxVersion: version, minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' })
    await closed(socket)
    expect(socket.getProtocol()).not.toBe('TLSv1.3')
    expect(await server.refusal()).toBe('handshake-failed')
    await stillServes(server)
  })

  test('a client without a certificate', async () => {
    const server = await startServer()
    const socket = rawTls(server.port, { cert: undefined, key: undefined })
    await closed(socket.resume())
    expect(await server.refusal()).toBe('certificate-missing')
    await stillServes(server)
  })

  test('a client whose certificate is not pinned', async () => {
    const server = await startServer()
    const { certificate, privateKey } = strangerIdentity
    await closed(rawTls(server.port, { cert: certificate, key: privateKey }).resume())
    expect(await server.refusal()).toBe('authentication-failed')
    await stillServes(server)
  })

  test("a client with a pinned certificate and another's key", async () => {
    const server = await startServer()
    const stolen = { identity: () => ({ ...workerIdentity, privateKey: strangerIdentity.privateKey }) }
    const credentials = { ...serverCredentials(), ...stolen }
    expect(await codeOf(connectWorker(server.port, {}, credentials))).not.toBe('no error')
    await stillServes(server)
  })

  test.each([[['http/1.1']], [['h2']], [[]]])('ALPN %j', async (ALPNProtocols) => {
    const server = await startServer()
    await closed(rawTls(server.port, { ALPNProtocols }).resume())
    expect(await server.refusal()).toBe('handshake-failed')
    await stillServes(server)
  })

  test('an HTTP/1.1 client', async () => {
    const server = await startServer()
    const { certificate: cert, privateKey: key } = workerIdentity
    const get = request({ host: '127.0.0.1', port: server.port, cert, key, rejectUnauthorized: false })
    const error = await new Promise((resolve) => get.on('error', resolve).end())
    expect(error).toBeInstanceOf(Error)
    expect(await server.refusal()).toBe('handshake-failed')
    await stillServes(server)
  })

  test.each([
    ['plain HTTP', 'GET / HTTP/1.1\r\nhost: a\r\n\r\n'],
    ['an HTTP/2 preface without TLS', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['zeros', '\0'.repeat(5000)],
  ])('%s', async (_name, bytes) => {
    const server = await startServer()
    const socket = connectTcp(server.port, '127.0.0.1', () => socket.write(Buffer.from(bytes, 'latin1')))
    await closed(socket.resume().on('error', () => {}))
    expect(await server.refusal()).toBe('handshake-failed')
    await stillServes(server)
  })

  test('a handshake that drips', async () => {
    const server = await startServer({ limits: { handshakeTimeoutMs: 100 } })
    const socket = connectTcp(server.port, '127.0.0.1')
    const record = Buffer.from('\x16\x03\x01\x40\x00'.padEnd(16_000, '\0'), 'latin1')
    let offset = 0
    const drip = setInterval(() => socket.write(record.subarray(offset, ++offset)), 5)
    await closed(socket.resume().on('error', () => {}))
    clearInterval(drip)
    expect(await server.refusal()).toBe('handshake-timeout')
  })

  test('more handshakes at a time than its bound', async () => {
    const server = await startServer({ limits: { maxHandshakes: 2 } })
    const idle = [1, 2].map(() => connectTcp(server.port, '127.0.0.1').on('error', () => {}))
    await Promise.all(idle.map((socket) => new Promise((resolve) => socket.once('connect', resolve))))
    await closed(
      connectTcp(server.port, '127.0.0.1')
        .resume()
        .on('error', () => {}),
    )
    expect(await server.refusal()).toBe('connection-limit')
    for (const socket of idle) socket.destroy()
    while (server.refused.length < 3) await new Promise(setImmediate)
    await stillServes(server)
  })

  test('more connections of one certificate than its bound, and says so', async () => {
    const server = await startServer({ limits: { maxConnectionsPerCertificate: 2 } })
    const held = [await connectWorker(server.port), await connectWorker(server.port)]
    await expect(connectWorker(server.port)).rejects.toMatchObject({ peerReason: { code: 'connection-limit' } })
    for (const connection of held) connection.destroy()
  })
})

describe('a client refuses', () => {
  async function startTls(options: Parameters<typeof createServer>[0], onSecure: (socket: TLSSocket) => void) {
    const { certificate: cert, privateKey: key } = serverIdentity
    const received: Buffer[] = []
    const server = createServer({ cert, key, requestCert: true, rejectUnauthorized: false, ...options }, (socket) => {
      socket.on('data', (chunk) => received.push(chunk)).on('error', () => {})
      onSecure(socket)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      server.close()
    })
    return { port: (server.address() as { port: number }).port, received }
  }

  test('a man in the middle with a certificate of its own, before a byte of ours', async () => {
    const { certificate: cert, privateKey: key } = strangerIdentity
    const { port, received } = await startTls({ cert, key, ALPNProtocols: [applicationProtocol] }, () => {})
    expect(await codeOf(connectWorker(port))).toBe('authentication-failed')
    expect(received).toEqual([])
  })

  test("a man in the middle that shows the server's certificate behind its own", async () => {
    const { certificate, privateKey: key } = strangerIdentity
    const cert = `${certificate}\n${serverIdentity.certificate}`
    const { port } = await startTls({ cert, key, ALPNProtocols: [applicationProtocol] }, () => {})
    expect(await codeOf(connectWorker(port))).toBe('authentication-failed')
  })

  test.each([
    ['TLS 1.2', { maxVersion: 'TLSv1.2' }],
    ['another protocol', { ALPNProtocols: ['h2'] }],
    ['no ALPN', {}],
  ] as const)('%s', async (_name, options) => {
    const { port } = await startTls({ ...options }, () => {})
    expect(await codeOf(connectWorker(port))).toBe('handshake-failed')
  })

  test.each([
    ['anything but our frames', 'HTTP/1.1 200 OK\r\n\r\n', 'message-malformed'],
    ['its end', '', 'connection-lost'],
  ])('a server that answers %s', async (_name, answer, code) => {
    const { port } = await startTls({ ALPNProtocols: [applicationProtocol] }, (socket) => socket.end(answer))
    expect(await codeOf(connectWorker(port))).toBe(code)
  })

  test('a server that never answers', async () => {
    const { port } = await startTls({ ALPNProtocols: [applicationProtocol] }, () => {})
    expect(await codeOf(connectWorker(port, { authenticationTimeoutMs: 50 }))).toBe('authentication-timeout')
  })

  test('to wait any longer when told to give up, at each stage', async () => {
    const aborted = AbortSignal.abort()
    const silent = await startTls({ ALPNProtocols: [applicationProtocol] }, () => {})
    const deaf = await startRelay(silent.port)
    deaf.cut()
    const attempt = (port: number, signal: AbortSignal) =>
      codeOf(connect({ host: '127.0.0.1', port, method: talk, credentials: workerCredentials(), signal }))
    expect(await attempt(silent.port, aborted)).toBe('connection-closed')
    for (const port of [silent.port, deaf.port]) {
      const controller = new AbortController()
      const outcome = attempt(port, controller.signal)
      for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
      controller.abort()
      expect(await outcome).toBe('connection-closed')
    }
  })

  test('nobody there, or somebody who goes away', async () => {
    const { port } = await startRelay(1)
    expect(await codeOf(connectWorker(1))).toBe('connect-failed')
    expect(await codeOf(connectWorker(port))).toBe('connection-lost')
  })
})

describe('sessions', () => {
  test('a session is not resumed, though OpenSSL gives tickets', async () => {
    const server = await startServer()
    const first = rawTls(server.port)
    const session = await new Promise<Buffer>((resolve) => first.once('session', resolve))
    const second = rawTls(server.port, { session })
    await new Promise((resolve) => second.once('secureConnect', resolve))
    expect(second.isSessionReused()).toBe(false)
  })

  test('a resumed session is refused', async () => {
    // The server above cannot be brought to resume one; this is what would happen if it could.
    const { certificate: cert, privateKey: key } = workerIdentity
    const ticketKeys = randomBytes(48)
    const resuming = createServer({ cert, key, ticketKeys, ALPNProtocols: [applicationProtocol] })
    await new Promise<void>((resolve) => resuming.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      resuming.close()
    })
    const { port } = resuming.address() as { port: number }
    const first = rawTls(port)
    const session = await new Promise<Buffer>((resolve) => first.once('session', resolve))
    const second = rawTls(port, { session })
    await new Promise((resolve) => second.once('secureConnect', resolve))
    expect(second.isSessionReused()).toBe(true)
    expect(() => verifySession(second)).toThrowError(expect.objectContaining({ code: 'session-resumed' }))
    expect(verifySession(first)).toBeDefined()
  })

  test('the certificate is read for each handshake; connections outlive a rotation', async () => {
    const rotatedIdentity = createPinnedIdentity('server', new Date())
    let current = serverIdentity
    const server = await startServer({ credentials: { ...serverCredentials(), identity: () => current } })
    const [before, accepted] = await Promise.all([connectWorker(server.port), server.accept()])
    current = rotatedIdentity
    expect(await codeOf(connectWorker(server.port))).toBe('authentication-failed')
    const rotated = pinnedCredentials(workerIdentity, [{ name: 'server', fingerprint: rotatedIdentity.fingerprint }])
    const after = await connectWorker(server.port, {}, rotated)
    await before.send(message('still'))
    expect(await next(accepted)).toHaveLength(5)
    for (const connection of [before, after]) connection.destroy()
  })
})

describe('what comes before authentication', () => {
  test('frames that a client sends early are kept and not read until the server has decided', async () => {
    let decide = () => {}
    const authenticate = async () => {
      await new Promise<void>((resolve) => {
        decide = resolve
      })
      return { name: 'worker', fingerprint: '' }
    }
    const server = await startServer({ credentials: { ...serverCredentials(), authenticate } })
    const peer = await rawPeer(server.port)
    peer.socket.write(
      Buffer.concat([creditFrame(1000), encodeFrame(frameTypes.message, [Buffer.from('0a0141', 'hex')], 9)]),
    )
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate)
    expect(peer.heard).toEqual([])
    decide()
    expect(String(await next(await server.accept()))).toBe('A')
    while (peer.heard.length === 0) await new Promise(setImmediate)
    expect(peer.heard.map(({ type }) => type)).toEqual([frameTypes.credit])
  })

  test('bytes that authentication exchanges do not mix with ours', async () => {
    const hello = Buffer.from('hello')
    const exchange = async ({ socket }: { socket: TLSSocket }) => {
      socket.write(hello)
      const got = await new Promise<Buffer>((resolve) => {
        const read = () => {
          const bytes: Buffer | null = socket.read(hello.length)
          if (bytes === null) return
          socket.off('readable', read)
          resolve(bytes)
        }
        socket.on('readable', read)
        read()
      })
      expect(String(got)).toBe('hello')
      return { name: 'peer', fingerprint: '' }
    }
    const server = await startServer({ credentials: { ...serverCredentials(), authenticate: exchange } })
    const credentials = { ...serverCredentials(), identity: () => workerIdentity, authenticate: exchange }
    const [client, accepted] = await Promise.all([connectWorker(server.port, {}, credentials), server.accept()])
    await client.send(message('after'))
    await accepted.send(message('reply'))
    expect([String(await next(accepted)), String(await next(client))]).toEqual(['after', 'reply'])
    client.destroy()
  })
})

describe('on the way', () => {
  test('a changed byte ends the connection', async () => {
    const server = await startServer()
    const relay = await startRelay(server.port)
    const [client, accepted] = await Promise.all([connectWorker(relay.port), server.accept()])
    const waiting = codeOf(next(client))
    relay.flip()
    await client.send(message(new Uint8Array(1000)))
    expect(await codeOf(next(accepted))).toBe('connection-lost')
    expect(await waiting).toBe('connection-lost')
  })

  test('a reset in the middle of a message', async () => {
    const server = await startServer()
    const relay = await startRelay(server.port)
    const [client, accepted] = await Promise.all([connectWorker(relay.port), server.accept()])
    const waiting = codeOf(next(accepted))
    await client.send(message(new Uint8Array(7_000_000)))
    relay.reset()
    expect(await waiting).toBe('connection-lost')
    expect(await codeOf(next(client))).toBe('connection-lost')
  })

  test('a cut that nobody reports is noticed by both ends', async () => {
    const quick = { keepaliveIntervalMs: 40, keepaliveTimeoutMs: 200 }
    const server = await startServer({ limits: quick })
    const relay = await startRelay(server.port)
    const [client, accepted] = await Promise.all([connectWorker(relay.port, quick), server.accept()])
    relay.cut()
    expect(await codeOf(next(client))).toBe('connection-lost')
    expect(await codeOf(next(accepted))).toBe('connection-lost')
  })

  test('an idle connection stays as long as heartbeats come', async () => {
    const quick = { keepaliveIntervalMs: 20, keepaliveTimeoutMs: 100 }
    const server = await startServer({ limits: quick })
    const [client, accepted] = await Promise.all([connectWorker(server.port, quick), server.accept()])
    const idle = client.bytesReceived
    while (client.bytesReceived < idle + 5 * 30) await new Promise((resolve) => setTimeout(resolve, 10))
    await client.send(message('alive'))
    expect(String(await next(accepted))).toBe('alive')
    client.destroy()
  })
})
