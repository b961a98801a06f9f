/** What every transport owes federation, over TLS or in memory: run by each with its own harness. */
import { describe, expect, test } from 'vitest'
import { TransportError } from '../../src/transport/transport-error.ts'
import { message } from './echo.ts'
import { describeEndings } from './transport-endings.ts'
import { type BytesConnection, codeOf, drain, next, pairsOf, type StartTransport, turns } from './transport-harness.ts'

export function describeTransport(name: string, start: StartTransport): void {
  describeEndings(name, start)
  const pair = pairsOf(start)

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
    const small = { sendBufferBytes: 65_536, windowBytes: 65_536 }

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
