/** Shards that go to another worker and back, while batches of them are in hands or wait in a round: each counts once. */
import { afterAll, describe, expect, test } from 'vitest'
import { FakeClock } from '../../test/support/fake-clock.ts'
import {
  allOf,
  batchSize,
  connectTo,
  helloOf,
  kinds,
  type RunningServer,
  startServer,
  startWorker,
  type Wire,
} from '../../test/support/federation.ts'
import { heldAt } from '../../test/support/held-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Deferred } from './deferred.ts'
import { workerMessage } from './protocol/messages.ts'
import type { PendingUpdate, ServerJob } from './server-options.ts'
import { asynchronous } from './strategies/asynchronous.ts'
import type { Decision, Strategy } from './strategies/strategy.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

const moveShardsAfterMs = 60_000

/** A server of two workers, and which batches it has applied, as shard/position. */
function startMoving(strategy: Strategy<PendingUpdate>, job: Partial<ServerJob>) {
  const [clock, applied]: [FakeClock, string[]] = [new FakeClock(), []]
  const noted = (decision: Decision<PendingUpdate>): Decision<PendingUpdate> => {
    if (decision.kind === 'apply') {
      applied.push(...decision.contributions.map(({ lease }) => `${lease?.shard}/${lease?.position}`).sort())
    }
    return decision
  }
  const server = startServer(engine, {
    clock,
    limits: { withoutWorkersMs: 1e9 },
    job: { moveShardsAfterMs, ...job },
    createStrategy: () => ({
      ...strategy,
      dueAt: undefined,
      add: (update, situation) => noted(strategy.add(update, situation)),
      review: (situation) => noted(strategy.review(situation)),
    }),
  })
  return { clock, applied, server }
}

/** Somebody who is admitted and gets a batch. */
async function comeIn(wire: Wire, worker: number) {
  const connection = await connectTo(wire, { name: `worker ${worker}` })
  await connection.send(workerMessage({ case: 'hello', value: { protocol: 3, ...helloOf(worker) } }))
  await connection.incoming[Symbol.asyncIterator]().next()
  return connection
}

async function isGone(server: RunningServer, worker: number): Promise<void> {
  while (!kinds(server.events, 'peer-left').some(({ peer }) => peer === `worker${worker}`)) {
    await new Promise(setImmediate)
  }
}

test('the last push of a worker that died waits in the round: its heir computes that batch, and only that counts', async () => {
  const strategy = allOf(2)
  const { clock, applied, server } = startMoving(strategy, { totalUpdates: 4 })
  const pushed = new Deferred<void>()
  const add = strategy.add
  strategy.add = (update, situation) => {
    if (update.worker === 0) pushed.resolve()
    return add(update, situation)
  }
  const victim = startWorker(engine, () => server.wire, 0, { reconnectForMs: 0 })
  await pushed.promise
  victim.stop.abort()
  await isGone(server, 0)
  clock.advance(moveShardsAfterMs)
  const heir = startWorker(engine, () => server.wire, 1)
  expect(await heir.result).toMatchObject({ reason: 'complete' })
  expect(await server.result).toMatchObject({ version: 4, examples: 4 * batchSize })
  expect(applied).toEqual(['0/0', '1/0', '0/1', '1/1'])
  expect(kinds(server.events, 'reassigned')).toMatchObject([{ shard: 0, from: 0, to: 1 }])
  expect(kinds(server.events, 'update-refused')).toMatchObject([{ worker: 0, error: { code: 'push-replaced' } }])
})

describe('a worker is back while its heir computes a batch of its shard', () => {
  test.each<[string, Strategy<PendingUpdate>, number]>([
    ['synchronous', allOf(2, { minimumWorkers: 2 }), 3],
    ['asynchronous', asynchronous({ stalenessExponent: 0 }), 20],
  ])('%s: one of the two pushes counts', async (mode, strategy, totalUpdates) => {
    const { clock, applied, server } = startMoving(strategy, { totalUpdates, synchronous: mode === 'synchronous' })
    const victim = await comeIn(server.wire, 0)
    victim.destroy()
    await isGone(server, 0)
    clock.advance(moveShardsAfterMs)
    const [computes, goOn] = [new Deferred<void>(), new Deferred<void>()]
    const heir = startWorker(engine, () => server.wire, 1, {
      training: heldAt(engine, 0, 1, goOn.promise, () => computes.resolve()),
    })
    await computes.promise
    const back = startWorker(engine, () => server.wire, 0, {
      training: heldAt(engine, 0, 0, Promise.resolve(), () => goOn.resolve()),
    })
    await Promise.all([server.result, heir.result, back.result])
    expect(new Set(applied).size).toBe(applied.length)
    for (const shard of [0, 1]) {
      const positions = applied.filter((batch) => batch.startsWith(`${shard}/`))
      expect(positions).toEqual(positions.map((_, position) => `${shard}/${position}`))
    }
    expect(kinds(server.events, 'update-refused')[0]).toMatchObject({ worker: 1, error: { code: 'push-replaced' } })
  })
})
