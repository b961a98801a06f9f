import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { message } from '../../test/contracts/echo.ts'
import { connectWorker, rawPeer, rawTls, startServer } from '../../test/contracts/pinned.ts'
import { type BytesConnection, codeOf, drain, next } from '../../test/contracts/transport-harness.ts'
import { encodeFrame } from './frame.ts'
import { creditFrame, creditOf, endFrame, frameTypes, heartbeatFrame } from './wire-frames.ts'

type Server = Awaited<ReturnType<typeof startServer>>

/** A protobuf BytesValue in its frame. */
function said(text: string | Buffer): Buffer {
  const value = Buffer.from(text)
  const header = value.length < 128 ? [0x0a, value.length] : [0x0a, (value.length & 0x7f) | 0x80, value.length >> 7]
  return encodeFrame(frameTypes.message, [Buffer.from(header), value], 2 ** 24)
}

async function stillServes(server: Server): Promise<void> {
  const client = await connectWorker(server.port)
  await client.send(message('good'))
  // Before it there may be connections that were accepted and are gone.
  for await (const accepted of server.listener.connections) {
    if (String(await next(accepted).catch(() => 'gone')) === 'good') break
  }
  client.destroy()
}

async function begin(options: Parameters<typeof startServer>[0] = {}) {
  const server = await startServer(options)
  const [peer, accepted]: [Awaited<ReturnType<typeof rawPeer>>, BytesConnection] = await Promise.all([
    rawPeer(server.port),
    server.accept(),
  ])
  peer.socket.write(creditFrame(2 ** 20))
  return { server, peer, accepted }
}

describe('what a server writes', () => {
  test('first its window, then nothing until there is something to say', async () => {
    const { peer, accepted } = await begin({ limits: { windowBytes: 70_000 } })
    while (peer.heard.length === 0) await turn()
    expect(peer.heard[0]!.type).toBe(frameTypes.credit)
    expect(creditOf(peer.heard[0]!.payload)).toBe(70_000)
    await accepted.send(message('A'))
    while (peer.heard.length < 2) await turn()
    expect(Buffer.from(peer.heard[1]!.payload).toString('hex')).toBe('0a0141')
    expect(peer.heard).toHaveLength(2)
  })

  test('credit for what was read, a quarter of the window at a time', async () => {
    const { peer, accepted } = await begin({ limits: { windowBytes: 8000 } })
    for (let index = 0; index < 4; index++) peer.socket.write(said(Buffer.alloc(742)))
    // 745 bytes of message and 256 each: two of them are more than a quarter.
    for (let index = 0; index < 4; index++) await next(accepted)
    while (peer.heard.length < 3) await turn()
    expect(peer.heard.map(({ type, payload }) => [type, creditOf(payload)])).toEqual([
      [frameTypes.credit, 8000],
      [frameTypes.credit, 2002],
      [frameTypes.credit, 2002],
    ])
  })

  test('nothing without credit', async () => {
    const server = await startServer()
    const [peer, accepted] = await Promise.all([rawPeer(server.port), server.accept()])
    const sent = (accepted as BytesConnection).send(message('A'))
    for (let turns = 0; turns < 50; turns++) await turn()
    expect(peer.heard.map(({ type }) => type)).toEqual([frameTypes.credit])
    peer.socket.write(creditFrame(1))
    await sent
    while (peer.heard.length < 2) await turn()
    expect(peer.heard[1]!.type).toBe(frameTypes.message)
  })
})

describe('peers that break the protocol', () => {
  const message16 = frameTypes.message.toString(16)
  test.each([
    ['a frame of an unknown type', Buffer.from('7f00000000', 'hex'), 'message-malformed'],
    ["a frame of gRPC's", Buffer.from('0000000000', 'hex'), 'message-malformed'],
    [
      'bytes that are no protobuf',
      encodeFrame(frameTypes.message, [Buffer.from('ffff', 'hex')], 9),
      'message-malformed',
    ],
    ['a length above the bound', Buffer.from(`${message16}ffffffff`, 'hex'), 'message-too-large'],
    ['a heartbeat with a payload', Buffer.from('120000000100', 'hex'), 'message-too-large'],
    ['a credit of three bytes', Buffer.from('1300000003000000', 'hex'), 'message-malformed'],
    ['a reason above the bound', Buffer.from('1100000801', 'hex'), 'message-too-large'],
  ])('%s: what came before is heard, the peer is told, others are served', async (_name, bytes, code) => {
    const { server, peer, accepted } = await begin()
    peer.socket.write(Buffer.concat([said('before'), bytes, said('after')]))
    expect(String(await next(accepted))).toBe('before')
    expect(await codeOf(next(accepted))).toBe(code)
    expect(await codeOf(accepted.send(message('x')))).toBe(code)
    peer.socket.end()
    expect(await peer.reason()).toMatchObject({ code })
    await stillServes(server)
  })

  test('messages beyond the credit', async () => {
    const { server, peer, accepted } = await begin({ limits: { windowBytes: 2000 } })
    for (let index = 0; index < 40; index++) peer.socket.write(said('x'))
    // 259 each: the eighth overdraws, the ninth may not come.
    peer.socket.end()
    expect(await peer.reason()).toMatchObject({ code: 'message-malformed' })
    const heard: string[] = []
    expect(
      await codeOf(
        (async () => {
          for await (const { value } of accepted.incoming) heard.push(String(Buffer.from(value)))
        })(),
      ),
    ).toBe('message-malformed')
    expect(heard).toHaveLength(8)
    await stillServes(server)
  })

  test.each([
    ['a message after the end', Buffer.concat([endFrame(undefined), said('late')])],
    ['two ends', Buffer.concat([endFrame(undefined), endFrame(undefined)])],
  ])('%s', async (_name, bytes) => {
    const { server, peer, accepted } = await begin()
    peer.socket.write(bytes)
    expect(await drain(accepted)).toEqual([])
    peer.socket.end()
    expect(await peer.reason()).toMatchObject({ code: 'message-malformed' })
    await stillServes(server)
  })

  test.each([
    ['between messages', said('A')],
    ['inside a header', Buffer.concat([said('A'), Buffer.from('1000', 'hex')])],
    ['inside a message', Buffer.concat([said('A'), Buffer.from('10000000ff0a', 'hex')])],
  ])('an end of TLS without an end of messages, %s: lost', async (_name, bytes) => {
    const { server, peer, accepted } = await begin()
    peer.socket.end(bytes)
    expect(String(await next(accepted))).toBe('A')
    expect(await codeOf(next(accepted))).toBe('connection-lost')
    await stillServes(server)
  })

  test('an end, and no end of TLS: the deadline ends it, and nothing was lost', async () => {
    const { peer, accepted } = await begin({ limits: { closeTimeoutMs: 50 } })
    peer.socket.write(Buffer.concat([said('A'), endFrame(undefined)]))
    expect(await drain(accepted)).toEqual(['65×1'])
    await accepted.close()
    expect(await peer.reason()).toBeUndefined()
  })

  test('a peer that says why hears our end', async () => {
    const { peer, accepted } = await begin()
    peer.socket.write(endFrame({ code: 'had-enough', message: 'no\nmore' }))
    const error = await next(accepted).catch((error: unknown) => error)
    expect(error).toMatchObject({ peerReason: { code: 'had-enough', message: 'no\ufffdmore' } })
    while (!peer.heard.some(({ type }) => type === frameTypes.end)) await turn()
    expect(await peer.reason()).toBeUndefined()
  })

  test('a flood of heartbeats and of credit, while nobody reads what comes back', async () => {
    const { server, peer, accepted } = await begin()
    peer.socket.pause()
    const flood = Buffer.concat(Array(4096).fill(Buffer.concat([heartbeatFrame, creditFrame(0xffff_ffff)])))
    for (let round = 0; round < 20; round++) peer.socket.write(flood)
    peer.socket.write(said('still here'))
    expect(String(await next(accepted))).toBe('still here')
    // What we write is bounded by our own buffer, whatever the credit.
    let sent = 0
    const sends = Array.from({ length: 40 }, () =>
      accepted.send(message(new Uint8Array(1_000_000))).then(() => {
        sent++
      }),
    )
    const outcome = Promise.allSettled(sends)
    for (let turns = 0; turns < 200; turns++) await turn()
    expect(sent).toBeLessThan(30)
    peer.socket.destroy()
    await outcome
    await stillServes(server)
  })

  test.each([
    ['an HTTP/2 preface', Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')],
    ['binary junk', Buffer.alloc(100_000, 0xff)],
  ])('%s', async (_name, bytes) => {
    const server = await startServer()
    const socket = rawTls(server.port)
    socket.end(bytes)
    await new Promise((resolve) => socket.resume().once('close', resolve))
    await stillServes(server)
  })
})
