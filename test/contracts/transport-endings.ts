/** The part of the contract suite (transport.ts) that is about how connections end: in order, with a reason, or not. */
import { describe, expect, test } from 'vitest'
import { message } from './echo.ts'
import { codeOf, drain, next, pairsOf, type StartTransport, turns } from './transport-harness.ts'

export function describeEndings(name: string, start: StartTransport): void {
  const pair = pairsOf(start)

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
      const limits = { sendBufferBytes: 65_536, windowBytes: 65_536 }
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
      const limits = { sendBufferBytes: 65_536, windowBytes: 65_536 }
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
      const limits = { sendBufferBytes: 65_536, windowBytes: 65_536 }
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
}
