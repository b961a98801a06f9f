/** What every transport owes federation, over TLS or in memory: run by each with its own harness. */
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Connection, Listener } from '../../src/transport/connection.ts'
import type { TransportLimits } from '../../src/transport/limits.ts'
import { TransportError } from '../../src/transport/transport-error.ts'
import { type Bytes, message } from './echo.ts'

export interface NamedPeer {
  readonly name: string
}

export type BytesConnection = Connection<NamedPeer, Bytes, Bytes>

export interface EndOptions {
  readonly limits?: Partial<TransportLimits>
  /** Runs while the other end is being authenticated; throws to refuse. */
  readonly judge?: (signal: AbortSignal) => Promise<void>
}

/** A listener whose clients see it as `server`; it sees them as `worker`. */
export interface TransportHarness {
  readonly listener: Listener<NamedPeer, Bytes, Bytes>
  /** What onRefused was told. */
  readonly refused: unknown[]
  connect(options?: EndOptions): Promise<BytesConnection>
}

export type StartTransport = (options?: EndOptions) => Promise<TransportHarness>

export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error) => (error instanceof TransportError ? error.code : String(error)),
  )
}

export async function next(connection: BytesConnection): Promise<Uint8Array | 'end'> {
  const result = await connection.incoming[Symbol.asyncIterator]().next()
  return result.done ? 'end' : result.value.value
}

/** Reads to the end; keeps first bytes and lengths only. */
export async function drain(connection: BytesConnection): Promise<string[]> {
  const seen: string[] = []
  for await (const { value } of connection.incoming) seen.push(`${value[0] ?? '-'}×${value.length}`)
  return seen
}

function turns(count: number): Promise<void> {
  return new Promise((resolve) => {
    const turn = (left: number) => (left === 0 ? resolve() : setImmediate(turn, left - 1))
    turn(count)
  })
}

export function describeTransport(name: string, start: StartTransport): void {
  const pair = async (server: EndOptions = {}, client: EndOptions = {}) => {
    const harness = await start(server)
    const [theirs, accepted] = await Promise.all([
      harness.connect(client),
      harness.listener.connections[Symbol.asyncIterator]().next(),
    ])
    const ours: BytesConnection = accepted.value
    onTestFinished(() => {
      ours.destroy()
      theirs.destroy()
    })
    return { ...harness, server: ours, client: theirs }
  }

  describe(`${name}: messages`, () => {
    test('each end knows the other', async () => {
      const { server, client } = await pair()
      expect([server.peer.name, client.peer.name]).toEqual(['worker', 'server'])
    })

    test('all sizes arrive whole and in order, both ways at once', async () => {
      const { server, client } = await pair()
      const sizes = [0, 1, 4, 5, 16_383, 16_384, 16_385, 65_535, 65_536, 1_000_003, ...Array(300).fill(7)]
      const expected = sizes.map((size, index) => `${size === 0 ? '-' : index % 256}×${size}`)
      const talk = async (connection: BytesConnection) => {
        for (const [index, size] of sizes.entries())
          await connection.send(message(new Uint8Array(size).fill(index % 256)))
        await connection.close()
      }
      const [atServer, atClient] = await Promise.all([drain(server), drain(client), talk(server), talk(client)])
      expect(atServer).toEqual(expected)
      expect(atClient).toEqual(expected)
    })

    test('two ends that both send more than any buffer holds do not wait for each other', async () => {
      const { server, client } = await pair()
      const large = message(new Uint8Array(4_000_000).fill(9))
      const talk = async (connection: BytesConnection) => {
        for (let sent = 0; sent < 6; sent++) await connection.send(large)
        await connection.close()
      }
      const [atServer, atClient] = await Promise.all([drain(server), drain(client), talk(server), talk(client)])
      expect([atServer.length, atClient.length]).toEqual([6, 6])
    })

    test('concurrent sends keep the order of their calls', async () => {
      const { server, client } = await pair({}, { limits: { sendBufferBytes: 1000 } })
      const sends = Array.from({ length: 100 }, (_, index) => client.send(message(new Uint8Array(700).fill(index))))
      void Promise.all(sends).then(() => client.close())
      expect(await drain(server)).toEqual(Array.from({ length: 100 }, (_, index) => `${index}×700`))
    })

    test('a loop that is left loses nothing: the next one goes on', async () => {
      const { server, client } = await pair()
      for (let index = 0; index < 10; index++) await client.send(message(Uint8Array.of(index)))
      await client.close()
      const first: number[] = []
      for await (const { value } of server.incoming) {
        first.push(value[0]!)
        if (first.length === 4) break
      }
      expect(first).toEqual([0, 1, 2, 3])
      expect(await drain(server)).toEqual(['4×1', '5×1', '6×1', '7×1', '8×1', '9×1'])
    })

    test('bytes are counted as sent there and received here', async () => {
      const { server, client } = await pair()
      await client.send(message(new Uint8Array(100_000)))
      await next(server)
      await server.close()
      await client.close()
      expect([await next(client), await next(server)]).toEqual(['end', 'end'])
      expect(client.bytesSent).toBeGreaterThan(100_000)
      expect(client.bytesSent).toBeLessThan(110_000)
      expect(server.bytesReceived).toBeGreaterThan(100_000)
      expect(server.bytesReceived).toBeLessThanOrEqual(client.bytesSent)
    })
  })

  describe(`${name}: back-pressure`, () => {
    const small = { sendBufferBytes: 65_536, streamWindowBytes: 65_536, sessionWindowBytes: 131_072 }

    test.each(['server', 'client'] as const)('send at the %s waits for the reader', async (side) => {
      const { server, client } = await pair({ limits: small }, { limits: small })
      const [sender, reader] = side === 'server' ? [server, client] : [client, server]
      let handedOver = 0
      const sends = Array.from({ length: 100 }, () =>
        sender.send(message(new Uint8Array(65_000))).then(() => {
          handedOver++
        }),
      )
      // One buffer's worth at the sender, one window's at the reader, and what is between them.
      const between = 8
      for (let taken = 0; taken < 100; taken++) {
        await turns(20)
        expect(handedOver).toBeLessThanOrEqual(taken + between)
        await next(reader)
      }
      await Promise.all(sends)
      expect(handedOver).toBe(100)
    })
  })

  describe(`${name}: endings`, () => {
    test.each(['server', 'client'] as const)('the %s ends its half and still hears the other', async (side) => {
      const { server, client } = await pair()
      const [first, second] = side === 'server' ? [server, client] : [client, server]
      await first.send(message('last words'))
      await first.close()
      expect(await codeOf(first.send(message('more')))).toBe('connection-closed')
      expect(await drain(second)).toEqual(['108×10'])
      await second.send(message('answer'))
      await second.close()
      expect(await drain(first)).toEqual(['97×6'])
    })

    test.each(['server', 'client'] as const)('what the %s sent before its end is read after it', async (side) => {
      const { server, client, listener } = await pair()
      const [sender, reader] = side === 'server' ? [server, client] : [client, server]
      for (let index = 0; index < 40; index++) await sender.send(message(new Uint8Array(50_000).fill(index)))
      await Promise.all([sender.close(), reader.close()])
      expect(await next(sender)).toBe('end')
      const closed = listener.close()
      await turns(50)
      expect((await drain(reader)).length).toBe(40)
      await closed
    })

    test('what waits to be sent is sent before the end, but not before a reason', async () => {
      const limits = { sendBufferBytes: 65_536, streamWindowBytes: 65_536, sessionWindowBytes: 131_072 }
      const { server, client } = await pair({ limits }, { limits })
      const sends = Array.from({ length: 20 }, (_, index) => client.send(message(new Uint8Array(65_000).fill(index))))
      const closed = client.close()
      expect(await drain(server)).toEqual(Array.from({ length: 20 }, (_, index) => `${index}×65000`))
      await Promise.all([...sends, closed])
      const replies = Array.from({ length: 20 }, () => codeOf(server.send(message(new Uint8Array(65_000)))))
      void server.close({ code: 'job-over', message: 'enough' })
      expect((await Promise.all(replies)).at(-1)).toBe('connection-closed')
      expect(await codeOf(drain(client))).toBe('closed-by-peer')
    })

    test.each(['server', 'client'] as const)('the %s says why, after its messages', async (side) => {
      const { server, client } = await pair()
      const [sender, reader] = side === 'server' ? [server, client] : [client, server]
      await sender.send(message('before'))
      await sender.close({ code: 'update-refused', message: 'expected ≤ 3 % of 100%\nforged line' })
      expect(String(await next(reader))).toBe('before')
      const error = await next(reader).catch((error: unknown) => error)
      expect(error).toMatchObject({
        code: 'closed-by-peer',
        peerReason: { code: 'update-refused', message: 'expected ≤ 3 % of 100%�forged line' },
      })
      expect(await codeOf(reader.send(message('late')))).toBe('closed-by-peer')
    })

    test.each(['server', 'client'] as const)('a reason reaches a %s that is blocked in send', async (side) => {
      const limits = { sendBufferBytes: 65_536, streamWindowBytes: 65_536, sessionWindowBytes: 131_072 }
      const { server, client } = await pair({ limits }, { limits })
      const [sender, refuser] = side === 'server' ? [server, client] : [client, server]
      const sends = Array.from({ length: 40 }, () => sender.send(message(new Uint8Array(65_000))))
      const outcome = Promise.all(sends.map(codeOf))
      await turns(20)
      await refuser.close({ code: 'too-slow', message: 'no' })
      expect((await outcome).at(-1)).toBe('closed-by-peer')
    })

    test.each(['server', 'client'] as const)('the %s destroys: both know at once', async (side) => {
      const { server, client } = await pair()
      const [breaker, other] = side === 'server' ? [server, client] : [client, server]
      const here = codeOf(next(breaker))
      const there = codeOf(next(other))
      breaker.destroy()
      expect(await here).toBe('connection-closed')
      expect(await there).toBe('connection-lost')
      expect(await codeOf(breaker.send(message('x')))).toBe('connection-closed')
      expect(await codeOf(other.send(message('x')))).toBe('connection-lost')
      await other.close()
      await breaker.close()
    })

    test('destroy passes its cause to whoever waits here', async () => {
      const { client } = await pair()
      const waiting = next(client)
      const cause = new Error('interrupted')
      client.destroy(cause)
      await expect(waiting).rejects.toBe(cause)
    })

    test('a send that waits fails when the peer is gone', async () => {
      const limits = { sendBufferBytes: 65_536, streamWindowBytes: 65_536, sessionWindowBytes: 131_072 }
      const { server, client } = await pair({ limits }, { limits })
      const sends = Array.from({ length: 40 }, () => client.send(message(new Uint8Array(65_000))))
      const outcome = Promise.all(sends.map(codeOf))
      await turns(20)
      server.destroy()
      expect((await outcome).at(-1)).toBe('connection-lost')
    })

    test('a peer that never ends its half is cut off', async () => {
      const { server, client } = await pair({ limits: { closeTimeoutMs: 50 } })
      await server.close()
      expect(await next(client)).toBe('end')
      expect(await codeOf(next(server))).toBe('connection-lost')
      let code = 'no error'
      while (code === 'no error') {
        await turns(1)
        code = await codeOf(client.send(message('x')))
      }
      expect(code).toBe('connection-lost')
    })

    test('closing twice is harmless, and so is destroying a closed connection', async () => {
      const { server, client } = await pair()
      await Promise.all([client.close(), client.close({ code: 'late', message: 'not told' }), server.close()])
      expect([await next(server), await next(client)]).toEqual(['end', 'end'])
      client.destroy()
      client.destroy()
    })
  })

  describe(`${name}: bounds`, () => {
    test('a message above our bound is not sent, and the connection stays', async () => {
      const { server, client } = await pair({}, { limits: { maxMessageBytes: 1000 } })
      expect(await codeOf(client.send(message(new Uint8Array(1000))))).toBe('message-too-large') // + tag and length
      await client.send(message(new Uint8Array(997)))
      expect((await next(server)).length).toBe(997)
    })

    test.each(['server', 'client'] as const)(
      'a message above the bound of the %s is refused with the reason',
      async (side) => {
        const limits = { maxMessageBytes: 1000 }
        const { server, client } = await pair(side === 'server' ? { limits } : {}, side === 'client' ? { limits } : {})
        const [refuser, sender] = side === 'server' ? [server, client] : [client, server]
        await sender.send(message(new Uint8Array(997)))
        await sender.send(message(new Uint8Array(998)))
        expect((await next(refuser)).length).toBe(997)
        expect(await codeOf(next(refuser))).toBe('message-too-large')
        const error = await next(sender).catch((error: unknown) => error)
        expect(error).toMatchObject({ code: 'closed-by-peer', peerReason: { code: 'message-too-large' } })
        expect(await codeOf(refuser.send(message('x')))).toBe('message-too-large')
      },
    )
  })

  describe(`${name}: authentication`, () => {
    const refuse = async () => {
      throw new TransportError('certificate-missing', 'expected another, got you')
    }
    const never = (signal: AbortSignal, seen: AbortSignal[]) => {
      seen.push(signal)
      return new Promise<void>(() => {})
    }

    test('a client that the server refuses gets no connection and is told why', async () => {
      const { connect, refused, listener } = await start({ judge: refuse })
      const error = await connect().catch((error: unknown) => error)
      expect(error).toMatchObject({
        code: 'closed-by-peer',
        peerReason: { code: 'certificate-missing', message: 'expected another, got you' },
      })
      while (refused.length === 0) await turns(1)
      expect(refused).toMatchObject([{ code: 'certificate-missing' }])
      await listener.close()
      expect(await listener.connections[Symbol.asyncIterator]().next()).toMatchObject({ done: true })
    })

    test('a server that the client refuses gets no connection', async () => {
      const { connect, listener } = await start()
      expect(await codeOf(connect({ judge: refuse }))).toBe('certificate-missing')
      await listener.close()
      expect(await listener.connections[Symbol.asyncIterator]().next()).toMatchObject({ done: true })
    })

    test('authentication that never ends at the server ends at its deadline', async () => {
      const seen: AbortSignal[] = []
      const { connect, refused } = await start({
        judge: (signal) => never(signal, seen),
        limits: { authenticationTimeoutMs: 50 },
      })
      expect(await codeOf(connect())).toBe('closed-by-peer')
      while (refused.length === 0) await turns(1)
      expect(refused).toMatchObject([{ code: 'authentication-timeout' }])
      expect(seen.map(({ aborted }) => aborted)).toEqual([true])
    })

    test('authentication that never ends at the client ends at its deadline', async () => {
      const seen: AbortSignal[] = []
      const { connect } = await start()
      const limits = { authenticationTimeoutMs: 50 }
      expect(await codeOf(connect({ judge: (signal) => never(signal, seen), limits }))).toBe('authentication-timeout')
      expect(seen.map(({ aborted }) => aborted)).toEqual([true])
    })

    test('no connection exists on either side before the server has decided', async () => {
      let decide = () => {}
      const events: string[] = []
      const { connect, listener } = await start({
        judge: () =>
          new Promise((resolve) => {
            decide = () => {
              events.push('decided')
              resolve()
            }
            events.push('asked')
          }),
      })
      const connected = connect().then((connection) => {
        events.push('connected')
        return connection
      })
      const accepted = listener.connections[Symbol.asyncIterator]()
        .next()
        .then(({ value }) => {
          events.push('accepted')
          return value as BytesConnection
        })
      while (events.length === 0) await turns(1)
      await turns(50)
      expect(events).toEqual(['asked'])
      decide()
      const ends = await Promise.all([connected, accepted])
      expect(events.slice(0, 2)).toEqual(['asked', 'decided'])
      for (const end of ends) end.destroy()
    })
  })

  describe(`${name}: listener`, () => {
    test('close ends the accepting, not the connections, and waits for them', async () => {
      const { server, client, listener, connect } = await pair()
      let closed = false
      const closing = listener.close().then(() => {
        closed = true
      })
      expect(await listener.connections[Symbol.asyncIterator]().next()).toMatchObject({ done: true })
      expect(await codeOf(connect())).toBe('connect-failed')
      await client.send(message('still here'))
      expect(await next(server)).toHaveLength(10)
      await turns(20)
      expect(closed).toBe(false)
      await Promise.all([client.close(), server.close()])
      expect([await next(server), await next(client)]).toEqual(['end', 'end'])
      await closing
    })

    test('close does not wait for ever', async () => {
      const { client, listener } = await pair({ limits: { closeTimeoutMs: 50 } })
      await listener.close()
      expect(await codeOf(next(client))).toBe('connection-lost')
    })
  })
}
