import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { message } from '../../test/contracts/echo.ts'
import { callHeaders, connectWorker, rawHttp2, rawTls, startServer } from '../../test/contracts/pinned.ts'
import { codeOf, next } from '../../test/contracts/transport-harness.ts'
import { Health } from './health.ts'

type Headers = Record<string, unknown>
type Session = Awaited<ReturnType<typeof rawHttp2>>

/** One request, written raw; its response headers and trailers in one. */
async function ask(session: Session, headers: Headers, body: Buffer = Buffer.alloc(0)): Promise<Headers> {
  const stream = session.request(headers as never, { endStream: false })
  let answer: Headers = {}
  stream.on('response', (response) => {
    answer = { ...answer, ...response }
  })
  stream.on('trailers', (trailers) => {
    answer = { ...answer, ...trailers }
  })
  stream.on('error', () => {})
  const closed = new Promise((resolve) => stream.once('close', resolve))
  stream.resume().end(body)
  await closed
  return answer
}

function frame(payload: Buffer, flag = 0): Buffer {
  const header = Buffer.alloc(5)
  header.writeUInt8(flag, 0)
  header.writeUInt32BE(payload.length, 1)
  return Buffer.concat([header, payload])
}

const bytesOf = (text: string) => Buffer.concat([Buffer.of(0x0a, text.length), Buffer.from(text)])

async function stillServes(server: Awaited<ReturnType<typeof startServer>>): Promise<void> {
  const client = await connectWorker(server.port)
  await client.send(message('good'))
  // Before it there may be calls that were accepted and are gone.
  for await (const accepted of server.listener.connections) {
    if (String(await next(accepted).catch(() => 'gone')) === 'good') break
  }
  client.destroy()
}

describe('requests that are no call of ours', () => {
  test.each([
    [
      'another path',
      { ':path': '/cloister.test.Echo/Other' },
      { 'grpc-status': '12', 'cloister-code': 'method-unknown' },
    ],
    ['a path of nothing', { ':path': '/' }, { 'grpc-status': '12' }],
    ['GET', { ':method': 'GET' }, { ':status': 415 }],
    ['another content', { 'content-type': 'application/json' }, { ':status': 415 }],
    ['gRPC-Web', { 'content-type': 'application/grpc-web+proto' }, { ':status': 415 }],
  ])('%s', async (_name, headers, answer) => {
    const server = await startServer()
    const session = await rawHttp2(server.port)
    expect(await ask(session, { ...callHeaders, ...headers })).toMatchObject(answer)
    await stillServes(server)
  })

  test('a second call on one connection', async () => {
    const server = await startServer()
    const session = await rawHttp2(server.port)
    session.request(callHeaders, { endStream: false }).on('error', () => {})
    await server.accept()
    expect(await ask(session, callHeaders)).toMatchObject({ 'grpc-status': '8', 'cloister-code': 'connection-limit' })
  })

  test('headers without end', async () => {
    const server = await startServer()
    const session = await rawHttp2(server.port)
    const many = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [`x-${index}`, 'x'.repeat(50)]))
    expect(await ask(session, { ...callHeaders, ...many })).toEqual({})
    await stillServes(server)
  })
})

describe('calls that break the protocol', () => {
  test.each([
    ['a compressed message', frame(bytesOf('x'), 1), 'message-malformed', '3'],
    ['bytes that are no protobuf', frame(Buffer.from('ffffffff', 'hex')), 'message-malformed', '3'],
    ['a length above the bound', Buffer.from('00ffffffff', 'hex'), 'message-too-large', '8'],
    ['an end inside a header', Buffer.from('0000', 'hex'), 'message-truncated', '3'],
    ['an end inside a message', Buffer.from('00000000ff0a', 'hex'), 'message-truncated', '3'],
  ])('%s: what came before is heard, the peer is told, others are served', async (_name, bytes, code, status) => {
    const server = await startServer()
    const session = await rawHttp2(server.port)
    const answer = ask(session, callHeaders, Buffer.concat([frame(bytesOf('before')), bytes]))
    const accepted = await server.accept()
    expect(String(await next(accepted))).toBe('before')
    expect(await codeOf(next(accepted))).toBe(code)
    expect(await answer).toMatchObject({ 'grpc-status': status, 'cloister-code': code })
    await stillServes(server)
  })

  test('a call cancelled in the middle of a message', async () => {
    const server = await startServer()
    const session = await rawHttp2(server.port)
    const stream = session.request(callHeaders, { endStream: false })
    stream.on('error', () => {})
    stream.write(Buffer.from('00000000ff0a', 'hex'))
    const accepted = await server.accept()
    stream.close(8) // Node ends the stream before it resets it: which of both is seen first is open.
    expect(await codeOf(next(accepted))).toMatch(/^(connection-lost|message-truncated)$/)
    await stillServes(server)
  })

  test.each([
    ['/cloister.test.Echo/Talk', 'POST'],
    ['/cloister.test.Echo/Other', 'POST'],
    ['/cloister.test.Echo/Talk', 'GET'],
    ['/grpc.health.v1.Health/Check', 'POST'],
    ['/grpc.health.v1.Health/Watch', 'POST'],
  ])('%s by %s, taken back in the same packet', async (path, method) => {
    const server = await startServer({ health: new Health() })
    for (let round = 0; round < 20; round++) {
      const session = await rawHttp2(server.port)
      for (let index = 0; index < 4; index++) {
        const headers = { ...callHeaders, ':path': path, ':method': method }
        const stream = session.request(headers, { endStream: index % 2 === 0 && method === 'GET' })
        stream.on('error', () => {})
        if (index % 2 === 0) stream.end(Buffer.from('0000000000', 'hex'))
        if (index < 2) stream.close(8)
        else stream.destroy()
      }
      await turn()
      session.destroy()
    }
    await stillServes(server)
  })

  test('bytes that are no HTTP/2', async () => {
    const server = await startServer()
    const socket = rawTls(server.port)
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
    socket.write(Buffer.alloc(100_000, 0xff))
    await new Promise((resolve) => socket.resume().once('close', resolve))
    await stillServes(server)
  })

  test('a flood of pings whose answers nobody reads', async () => {
    const server = await startServer()
    const socket = rawTls(server.port)
    await new Promise((resolve) => socket.once('secureConnect', resolve))
    socket.pause()
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
    socket.write(Buffer.from('000000040000000000', 'hex'))
    const pings = Buffer.alloc(17 * 4096)
    for (let offset = 0; offset < pings.length; offset += 17) pings.write('0000080600', offset, 'hex')
    for (let round = 0; round < 20 && !socket.destroyed; round++) {
      socket.write(pings)
      await turn()
    }
    await stillServes(server)
  })
})
