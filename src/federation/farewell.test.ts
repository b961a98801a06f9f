/** Workers that come when training is over, and servers that wait for them, but not for ever. */
import { afterAll, describe, expect, test } from 'vitest'
import { FakeClock } from '../../test/support/fake-clock.ts'
import { connectTo, helloOf, kinds, startServer, startWorker } from '../../test/support/federation.ts'
import { startServers, startTableWorker } from '../../test/support/server-group.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Deferred } from './deferred.ts'
import { workerMessage } from './protocol/messages.ts'
import type { PendingUpdate, ServerResult } from './server-options.ts'
import { asynchronous } from './strategies/asynchronous.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

/** A job of two workers, of which only worker 0 is there while it lasts. */
function startAlmostAlone({ minimumToStart = 1 } = {}) {
  const clock = new FakeClock()
  const concluded = new Deferred<ServerResult>()
  const server = startServer(engine, {
    job: { totalUpdates: 4, minimumToStart },
    createStrategy: () => asynchronous<PendingUpdate>({ stalenessExponent: 0 }),
    limits: { lateWorkersMs: 60_000 },
    conclude: (result) => concluded.resolve(result),
    clock,
  })
  const present = startWorker(engine, () => server.wire, 0)
  return { server, present, concluded: concluded.promise, clock }
}

describe('a server that is done', () => {
  test('tells a late worker, which ends well, and then ends', async () => {
    const { server, present, concluded } = startAlmostAlone()
    const result = await concluded
    expect(result).toMatchObject({ reason: 'complete', version: 4 })
    const early = await present.result
    const late = await startWorker(engine, () => server.wire, 1).result
    expect(late).toEqual({ reason: 'complete', steps: 0, examples: 0, scores: early.scores })
    expect(Object.keys(late.scores).length).toBeGreaterThan(0)
    expect(await server.result).toEqual(result)
    expect(kinds(server.events, 'warning').map(({ error }) => error)).toMatchObject([
      { code: 'peers-unheard', message: expect.stringContaining('not yet worker1;') },
    ])
    expect(kinds(server.events, 'peer-left').at(-1)).toEqual({ kind: 'peer-left', peer: 'worker1', reason: 'finished' })
  })

  test('waits for nobody when all have heard', async () => {
    const { server, concluded, present } = startAlmostAlone({ minimumToStart: 2 })
    const other = startWorker(engine, () => server.wire, 1)
    await concluded
    expect(await server.result).toMatchObject({ reason: 'complete' })
    expect(kinds(server.events, 'warning')).toEqual([])
    await Promise.all([present.result, other.result])
  })

  test('ends when time is up', async () => {
    const { server, present, concluded, clock } = startAlmostAlone()
    await concluded
    await present.result
    let ended = false
    void server.result.then(() => {
      ended = true
    })
    clock.advance(59_999)
    await new Promise(setImmediate)
    expect(ended).toBe(false)
    clock.advance(1)
    await server.result
  })

  test('refuses a worker of another plan, waits on, and ends at a stop with its result', async () => {
    const { server, concluded } = startAlmostAlone()
    await concluded
    const connection = await connectTo(server.wire, { name: 'intruder' })
    const hello = helloOf(1, { planDigest: new Uint8Array(32).fill(9) })
    await connection.send(workerMessage({ case: 'hello', value: { protocol: 3, ...hello } }))
    const { value } = await connection.incoming[Symbol.asyncIterator]().next()
    expect(value?.message).toMatchObject({ case: 'refused', value: { code: 'plan-mismatch' } })
    connection.destroy()
    server.stop.abort()
    expect(await server.result).toMatchObject({ reason: 'complete', version: 4 })
  })
})

test.each([1, 2, 3])('a worker that begins when %i servers are done', async (servers) => {
  let concluded = 0
  const all = new Deferred<void>()
  const group = startServers(engine, {
    servers,
    workers: 2,
    totalUpdates: 4,
    createStrategy: () => asynchronous<PendingUpdate>({ stalenessExponent: 0 }),
    job: { synchronous: false },
    limits: { lateWorkersMs: 60_000 },
    conclude() {
      if (++concluded === servers) all.resolve()
    },
  })
  const early = await startTableWorker(engine, group, 0).result
  await all.promise
  const late = await startTableWorker(engine, group, 1).result
  expect(late).toEqual({ reason: 'complete', steps: 0, examples: 0, scores: early.scores })
  for (const { result } of group.servers) expect(await result).toMatchObject({ reason: 'complete' })
})
