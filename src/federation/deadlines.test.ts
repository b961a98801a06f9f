/** Workers that hang or are slow, over the in-memory transport, on a clock that the test moves. */
import { afterAll, expect, test } from 'vitest'
import { FakeClock } from '../../test/support/fake-clock.ts'
import { allOf, kinds, linearTraining, startServer, startWorker } from '../../test/support/federation.ts'
import { heldAt } from '../../test/support/held-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Deferred } from './deferred.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

const never = new Promise<never>(() => undefined)

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(setImmediate)
}

test('a round closes without the straggler, whose late push is dropped with a reason', async () => {
  const [clock, gate] = [new FakeClock(), new Deferred<void>()]
  const server = startServer(engine, {
    clock,
    limits: { withoutWorkersMs: 1e9 },
    job: { totalUpdates: 3 },
    createStrategy: () => allOf(2, { deadlineMs: 4_000 }),
    events: (event) => {
      if (event.kind === 'update' && event.step === 2) gate.resolve()
    },
  })
  const slow = startWorker(engine, () => server.wire, 1, {
    training: heldAt(engine, 1, 1, gate.promise, () => undefined),
  })
  const fast = startWorker(engine, () => server.wire, 0)
  await until(() => kinds(server.events, 'update').length === 1)
  // Round 2: the fast worker's push starts the deadline (the other two alarms are gone by then).
  await until(() => clock.alarms > 0)
  clock.advance(3_999)
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(kinds(server.events, 'update').length).toBe(1)
  clock.advance(1)
  await Promise.all([server.result, slow.result, fast.result])
  expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 1, 2])
  expect(kinds(server.events, 'update-refused')).toMatchObject([{ worker: 1, error: { code: 'push-late' } }])
  expect(kinds(slow.events, 'update-refused')).toMatchObject([{ step: 1, error: { code: 'push-late' } }])
})

test('N of M takes the first N', async () => {
  const gate = new Deferred<void>()
  const server = startServer(engine, {
    job: { workers: 3, totalUpdates: 4 },
    createStrategy: () => allOf(2, { minimumWorkers: 2 }),
    events: (event) => {
      if (event.kind === 'update' && event.step === 3) gate.resolve()
    },
  })
  const workers = [0, 1, 2].map((index) =>
    startWorker(engine, () => server.wire, index, {
      training: index === 2 ? heldAt(engine, 0, 2, gate.promise, () => undefined) : linearTraining(engine, index, 3),
    }),
  )
  await Promise.all([server.result, ...workers.map(({ result }) => result)])
  expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 2, 2, 2])
  expect(kinds(workers[2]!.events, 'update-refused')[0]).toMatchObject({ step: 0, error: { code: 'push-late' } })
})

test('without any worker for too long the server gives up, and saves', async () => {
  const clock = new FakeClock()
  const server = startServer(engine, { clock, limits: { withoutWorkersMs: 60_000 } })
  await until(() => clock.alarms > 0)
  clock.advance(60_000)
  await expect(server.result).rejects.toMatchObject({ code: 'workers-gone' })
  expect(server.saved.map(({ version }) => version)).toEqual([0])
})

test('a worker that does not score in time is refused, and the scores are those of the others', async () => {
  const clock = new FakeClock()
  const scored = new Deferred<void>()
  const server = startServer(engine, {
    clock,
    limits: { evaluationMs: 30_000, withoutWorkersMs: 1e9 },
    job: { totalUpdates: 2, evaluateEvery: 1 },
  })
  const stuck = startWorker(engine, () => server.wire, 1, {
    training: linearTraining(engine, 1, 2, {
      heldOut: async function* () {
        yield await never
      },
    }),
  })
  // Worker 0 is given its second step when its scores are there.
  const training = heldAt(engine, 1, 0, Promise.resolve(), () => scored.resolve())
  const other = startWorker(engine, () => server.wire, 0, { training })
  await scored.promise
  clock.advance(30_000)
  expect(await server.result).toMatchObject({ reason: 'complete', heldOut: { examples: 12 } })
  expect(await other.result).toMatchObject({ reason: 'complete' })
  expect(kinds(server.events, 'evaluation').map(({ step, examples }) => [step, examples])).toEqual([
    [1, 12],
    [2, 12],
  ])
  const left = kinds(server.events, 'peer-left').find(({ peer }) => peer === 'worker1')
  expect(left).toMatchObject({ reason: 'refused', error: { code: 'scores-late' } })
  stuck.stop.abort()
})
