/** Workers and servers that die, come back or are stopped, over the in-memory transport. */
import { afterAll, describe, expect, test } from 'vitest'
import { FakeClock } from '../../test/support/fake-clock.ts'
import {
  allOf,
  batchSize,
  connectTo,
  describe as describePeer,
  helloOf,
  kinds,
  linearTraining,
  type RunningServer,
  startServer,
  startWorker,
  type WorkerConnection,
} from '../../test/support/federation.ts'
import { heldAt } from '../../test/support/held-training.ts'
import { linearManifest, linearStep } from '../../test/support/linear-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Deferred } from './deferred.ts'
import { FederationError } from './federation-error.ts'
import { workerMessage } from './protocol/messages.ts'
import type { PendingUpdate } from './server-options.ts'
import { slicesOf } from './slices.ts'
import { asynchronous } from './strategies/asynchronous.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

/** Connects worker 1 and keeps hold of its connections, to cut them. */
function cuttable(server: RunningServer) {
  const connections: WorkerConnection[] = []
  return {
    connections,
    async connect() {
      const connection = await connectTo(server.wire, { name: 'worker1' })
      connections.push(connection)
      return connection
    },
  }
}

const never = new Promise<never>(() => undefined)

describe('a worker that dies', () => {
  test.each([
    ['synchronous', () => allOf(2)],
    ['asynchronous', () => asynchronous<PendingUpdate>({ stalenessExponent: 0 })],
  ])('%s: it is noticed, and the other finishes', async (name, createStrategy) => {
    const synchronous = name === 'synchronous'
    const server = startServer(engine, { job: { totalUpdates: 8, synchronous }, createStrategy })
    const { connect, connections } = cuttable(server)
    const dying = startWorker(engine, () => server.wire, 1, {
      connect: async () => {
        if (connections.length > 0) return await never
        return await connect()
      },
      training: heldAt(engine, 2, 1, never, () => connections[0]!.destroy()),
    })
    const other = startWorker(engine, () => server.wire, 0)
    expect(await server.result).toMatchObject({ reason: 'complete', version: 8, heldOut: { examples: 12 } })
    expect(await other.result).toMatchObject({ reason: 'complete' })
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({ peer: 'worker1', reason: 'lost' })
    dying.stop.abort()
  })

  test('a synchronous round that waits for it only closes at once, with what is there', async () => {
    const server = startServer(engine, { job: { totalUpdates: 3 } })
    const { connect, connections } = cuttable(server)
    const pushed = new Deferred<void>()
    startWorker(engine, () => server.wire, 1, {
      connect: () => (connections.length > 0 ? never : connect()),
      training: heldAt(engine, 1, 1, never, () => pushed.resolve()),
    })
    const other = startWorker(engine, () => server.wire, 0, {
      events: ({ kind }) => {
        // Its second push is with the server soon; worker 1 never sends its own.
        if (kind === 'step') void pushed.promise.then(() => setImmediate(() => connections[0]!.destroy()))
      },
    })
    expect(await other.result).toMatchObject({ reason: 'complete' })
    expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 1, 1])
  })

  test('below the minimum the others wait until it is back', async () => {
    const server = startServer(engine, {
      job: { totalUpdates: 4 },
      createStrategy: () => allOf(2, { minimumWorkers: 2 }),
    })
    const { connect, connections } = cuttable(server)
    const worker = startWorker(engine, () => server.wire, 1, {
      connect,
      training: heldAt(engine, 2, 1, Promise.resolve(), () => connections[0]!.destroy()),
    })
    const other = startWorker(engine, () => server.wire, 0)
    await Promise.all([server.result, worker.result, other.result])
    expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 2, 2, 2])
    expect(connections.length).toBe(2)
    expect(kinds(worker.events, 'connection-lost')).toMatchObject([{ attempt: 1, error: { code: 'peer-lost' } }])
    const seen = server.events.filter(({ kind }) => kind === 'peer-joined' || kind === 'peer-left')
    const ofWorker1 = seen.filter((event) => 'peer' in event && event.peer === 'worker1').map(({ kind }) => kind)
    expect(ofWorker1).toEqual(['peer-joined', 'peer-left', 'peer-joined', 'peer-left'])
  })

  test('with its push waiting in the round: it computes that batch again, none is skipped or counted twice', async () => {
    const back = new Deferred<void>()
    let pushes = 0
    const server = startServer(engine, {
      job: { totalUpdates: 5 },
      createStrategy() {
        const strategy = allOf(2, { minimumWorkers: 2 })
        const add = strategy.add
        strategy.add = (update, situation) => {
          if (update.worker === 1) pushes++
          if (pushes === 2) connections[0]!.destroy()
          if (pushes === 3) back.resolve()
          return add(update, situation)
        }
        return strategy
      },
    })
    const { connect, connections } = cuttable(server)
    const step = linearStep(engine, batchSize)
    const worker = startWorker(engine, () => server.wire, 1, {
      connect,
      training: linearTraining(engine, 1, 2, { step }),
    })
    const other = startWorker(engine, () => server.wire, 0, {
      training: heldAt(engine, 1, 0, back.promise, () => undefined),
    })
    await Promise.all([server.result, worker.result, other.result])
    expect(step.seeds.map(([, position]) => position)).toEqual([0, 1, 1, 2, 3, 4])
    expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 2, 2, 2, 2])
    expect(kinds(server.events, 'update-refused')).toMatchObject([{ worker: 1, error: { code: 'push-replaced' } }])
  })

  test('and comes back before that was noticed takes its own place', async () => {
    const server = startServer(engine, { job: { workers: 1, totalUpdates: 2 }, createStrategy: () => allOf(1) })
    const stale = await connectTo(server.wire, { name: 'stale' })
    await stale.send(workerMessage({ case: 'hello', value: { protocol: 3, ...helloOf(0) } }))
    const messages = stale.incoming[Symbol.asyncIterator]()
    expect((await messages.next()).value?.message.case).toBe('welcome')
    const worker = startWorker(engine, () => server.wire, 0, { training: linearTraining(engine) })
    expect(await worker.result).toMatchObject({ reason: 'complete', steps: 2 })
    await expect(messages.next()).rejects.toMatchObject({ code: 'connection-lost' })
    await server.result
    expect(kinds(server.events, 'peer-left').map(({ peer, reason }) => [peer, reason])).toEqual([
      ['worker0', 'replaced'],
      ['worker0', 'finished'],
    ])
  })
})

describe('a server that dies', () => {
  test('orderly: workers wait, join its successor and go on from what it saved', async () => {
    const first = startServer(engine, {
      job: { totalUpdates: 6 },
      events: (event) => {
        if (event.kind === 'update' && event.step === 3) first.stop.abort()
      },
    })
    let current = first
    const workers = [0, 1].map((index) => startWorker(engine, () => current.wire, index))
    expect(await first.result).toMatchObject({ reason: 'stopped', heldOut: { examples: 0 } })
    expect(first.checkpoints.steps).toEqual([3])
    current = startServer(engine, { job: { totalUpdates: 6 }, checkpoints: first.checkpoints })
    const results = await Promise.all(workers.map((worker) => worker.result))
    expect(results).toMatchObject([{ reason: 'complete' }, { reason: 'complete' }])
    expect(await current.result).toMatchObject({ reason: 'complete', version: 6, heldOut: { examples: 24 } })
    expect(kinds(current.events, 'update').map(({ step }) => step)).toEqual([4, 5, 6])
    for (const { events } of workers) expect(kinds(events, 'connection-lost').length).toBeGreaterThan(0)
  })

  test('without a word: likewise, from the last save on the way', async () => {
    const connections: WorkerConnection[] = []
    const first = startServer(engine, {
      job: { totalUpdates: 1_000, saveEvery: 1 },
      events: (event) => {
        if (event.kind !== 'update' || event.step !== 3) return
        const [step] = first.checkpoints.steps
        current = startServer(engine, { job: { totalUpdates: 6 }, checkpoints: first.checkpoints.copy(step!) })
        for (const connection of connections) connection.destroy()
      },
    })
    let current = first
    const workers = [0, 1].map((index) =>
      startWorker(engine, () => current.wire, index, {
        async connect() {
          const connection = await connectTo(current.wire, { name: `worker ${index}` })
          connections.push(connection)
          return connection
        },
      }),
    )
    const results = await Promise.all(workers.map((worker) => worker.result))
    expect(results).toMatchObject([{ reason: 'complete' }, { reason: 'complete' }])
    expect(await current.result).toMatchObject({ reason: 'complete', version: 6, heldOut: { examples: 24 } })
    expect(kinds(current.events, 'update')[0]!.step).toBeGreaterThan(1)
    first.stop.abort()
    await first.result
  })

  test('for longer than stated: workers try ever less often, then give up', async () => {
    const clock = new FakeClock()
    const refused = new Error('connection refused')
    const worker = startWorker(engine, () => expect.fail(), 0, {
      clock,
      reconnectForMs: 20_000,
      connect: () => Promise.reject(refused),
    })
    let ended = false
    const done = worker.result
      .catch((error: Error) => error)
      .finally(() => {
        ended = true
      })
    while (!ended) {
      await new Promise(setImmediate)
      if (clock.alarms > 0) clock.advance(250)
    }
    expect(await done).toMatchObject({ code: 'server-unreachable', cause: { cause: refused } })
    const waits = kinds(worker.events, 'connection-lost').map(({ retryInMs }) => retryInMs)
    expect(waits).toEqual([250, 500, 1000, 2000, 4000, 5000, 5000, 2250])
    expect(clock.now()).toBe(20_000)
  })

  test('a failure that no other attempt would mend ends the worker at once', async () => {
    const unacceptable = new Error('measurement differs')
    const worker = startWorker(engine, () => expect.fail(), 0, {
      connect: () => Promise.reject(unacceptable),
      mayRetry: (error) => error !== unacceptable,
    })
    await expect(worker.result).rejects.toBe(unacceptable)
    expect(kinds(worker.events, 'connection-lost')).toEqual([])
  })
})

describe('a peer that is no longer acceptable', () => {
  const outOfPolicy = new FederationError('refused-by-server', 'its platform was revoked', { hint: '' })

  test('a worker is dropped in the middle of the job with the reason, and the others go on', async () => {
    const withdrawn = new AbortController()
    const server = startServer(engine, {
      job: { totalUpdates: 5 },
      describe: (peer) =>
        peer.name === 'worker 1' ? { ...describePeer(peer), withdrawn: withdrawn.signal } : describePeer(peer),
    })
    const dropped = startWorker(engine, () => server.wire, 1, {
      training: heldAt(engine, 2, 1, Promise.resolve(), () => withdrawn.abort(outOfPolicy)),
    })
    const other = startWorker(engine, () => server.wire, 0)
    await expect(dropped.result).rejects.toMatchObject({ code: 'refused-by-server' })
    expect(await other.result).toMatchObject({ reason: 'complete' })
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({
      peer: 'worker1',
      reason: 'refused',
      error: { message: 'its platform was revoked' },
    })
    expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 2, 1, 1, 1])
  })

  test('a push that was on its way does not count', async () => {
    const [withdrawn, headerRead] = [new AbortController(), new Deferred<void>()]
    let pushed = false
    const server = startServer(engine, {
      job: { totalUpdates: 3 },
      createStrategy: () => allOf(1),
      // Memory for a push is taken when its header has been read.
      engine: {
        ...engine,
        tensor(...input) {
          if (pushed) headerRead.resolve()
          return engine.tensor(...input)
        },
      },
      describe: (peer) =>
        peer.name === 'dropped' ? { ...describePeer(peer), withdrawn: withdrawn.signal } : describePeer(peer),
      events: (event) => {
        // Its values come when the server has decided already, and still reads the stream to its end.
        if (event.kind === 'peer-left')
          for (const body of rest) connection.send(workerMessage(body)).catch(() => undefined)
      },
    })
    const targets = linearManifest.map(({ elements }) => new Float32Array(elements))
    const whole = [...slicesOf(targets)].map((slices) => ({ case: 'slices' as const, value: { slices } }))
    let rest: typeof whole = []
    const connection = await connectTo(server.wire, { name: 'dropped' })
    const messages = connection.incoming[Symbol.asyncIterator]()
    const until = async (kind: string) => {
      for (;;) {
        const { value } = await messages.next()
        if (value?.message.case === kind) return value.message.value
      }
    }
    const say = (body: Parameters<typeof workerMessage>[0]) => connection.send(workerMessage(body))
    await say({ case: 'hello', value: { protocol: 3, ...helloOf(1) } })
    await say({ case: 'pull', value: { id: 0, evaluate: false, rowCounts: [] } })
    await until('slices')
    rest = whole
    pushed = true
    await say({ case: 'push', value: { pull: 0, examples: batchSize, loss: 1234 } })
    await headerRead.promise
    withdrawn.abort(outOfPolicy)
    expect(await until('refused')).toMatchObject({ code: 'refused-by-server' })
    const worker = startWorker(engine, () => server.wire, 0)
    expect(await worker.result).toMatchObject({ reason: 'complete', steps: 3 })
    await connection.close()
    expect(kinds(server.events, 'update').map(({ loss }) => loss)).not.toContain(1234)
  })

  test('a server: the worker sends it nothing more, and does not come back', async () => {
    const withdrawn = new AbortController()
    const server = startServer(engine, { job: { workers: 1, totalUpdates: 5 }, createStrategy: () => allOf(1) })
    const worker = startWorker(engine, () => server.wire, 0, {
      describe: (peer) => ({ ...describePeer(peer), withdrawn: withdrawn.signal }),
      training: heldAt(engine, 2, 0, Promise.resolve(), () => withdrawn.abort(outOfPolicy)),
    })
    await expect(worker.result).rejects.toBe(outOfPolicy)
    expect(kinds(server.events, 'update').length).toBe(2)
    expect(kinds(worker.events, 'connection-lost')).toEqual([])
    server.stop.abort()
    expect(await server.result).toMatchObject({ reason: 'stopped', version: 2 })
  })
})

describe('stopped by a signal', () => {
  test('a worker leaves with a reason, and the others go on', async () => {
    const server = startServer(engine, { job: { totalUpdates: 5 } })
    const leaving = startWorker(engine, () => server.wire, 1, {
      training: heldAt(engine, 2, 1, Promise.resolve(), () => leaving.stop.abort()),
    })
    const other = startWorker(engine, () => server.wire, 0)
    expect(await leaving.result).toMatchObject({ reason: 'stopped' })
    expect(await other.result).toMatchObject({ reason: 'complete' })
    expect(await server.result).toMatchObject({ version: 5 })
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({
      peer: 'worker1',
      error: { code: 'worker-left', message: expect.stringContaining('stopped') },
    })
  })

  test('a worker that waits for a server ends at once', async () => {
    const worker = startWorker(engine, () => expect.fail(), 0, {
      connect: () => Promise.reject(new Error('refused')),
      reconnectForMs: 1e9,
      events: ({ kind }) => {
        if (kind === 'connection-lost') worker.stop.abort()
      },
    })
    expect(await worker.result).toMatchObject({ reason: 'stopped', steps: 0 })
  })

  test('a server that is stopped before the first update has trained for no time', async () => {
    const server = startServer(engine)
    const held = new Promise<void>((resolve) => server.stop.signal.addEventListener('abort', () => resolve()))
    const worker = startWorker(engine, () => server.wire, 0, {
      training: heldAt(engine, 0, 0, held, () => server.stop.abort()),
    })
    expect(await server.result).toMatchObject({ reason: 'stopped', version: 0, seconds: 0 })
    worker.stop.abort()
    expect(await worker.result).toMatchObject({ reason: 'stopped' })
  })

  test('a server saves what was learnt, also before any worker came', async () => {
    const server = startServer(engine)
    server.stop.abort()
    expect(await server.result).toMatchObject({ reason: 'stopped', version: 0 })
    expect(server.saved.map(({ version }) => version)).toEqual([0])
  })
})
