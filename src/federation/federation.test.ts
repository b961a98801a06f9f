/** Server and workers together over the in-memory transport, when all goes well. */
import { afterAll, describe, expect, test } from 'vitest'
import { FakeClock } from '../../test/support/fake-clock.ts'
import {
  allOf,
  batchSize,
  connectTo,
  kinds,
  linearModel,
  linearTraining,
  overheard,
  type RunningServer,
  type RunningWorker,
  type SavedModel,
  savedModel,
  startServer,
  startWorker,
} from '../../test/support/federation.ts'
import { linearBatches, linearEvaluation, linearHeldOut, linearStep } from '../../test/support/linear-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { systemClock } from './clock.ts'
import { Deferred } from './deferred.ts'
import { trainLocally } from './local.ts'
import type { Task } from './protocol/remote-worker.ts'
import { constant, cosine } from './schedules.ts'
import { asynchronous } from './strategies/asynchronous.ts'
import type { TrainingOptions } from './training.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

const linearBatch = linearBatches(batchSize, 2)
const schedule = cosine({ rate: 0.2, updates: 8 })

function finished(server: RunningServer, ...workers: RunningWorker[]) {
  return Promise.all([server.result, ...workers.map(({ result }) => result)])
}

/** One process, batches of `size`; what it ends with. */
async function local(size: number, totalUpdates: number): Promise<{ model: SavedModel; scores: unknown }> {
  const model = linearModel(engine)
  const training = linearTraining(engine, 0, 1, {
    step: linearStep(engine, size),
    evaluation: linearEvaluation(engine, size),
    batch: linearBatches(size),
    heldOut: () => linearHeldOut(size),
  })
  const { heldOut } = await trainLocally({
    engine,
    model,
    training,
    schedule,
    totalUpdates,
    evaluateEvery: 0,
    clock: systemClock,
    events: () => undefined,
    signal: new AbortController().signal,
  })
  return { model: savedModel(model.snapshot()), scores: heldOut }
}

test('the six steps follow each other, and the server ends by asking for scores', async () => {
  const trace: string[] = []
  const server = startServer(engine, {
    job: { workers: 1, totalUpdates: 2 },
    createStrategy: () => allOf(1),
    events: ({ kind }) => trace.push(kind),
  })
  const worker = startWorker(engine, () => server.wire, 0, {
    connect: async () => overheard(await connectTo(server.wire, { name: 'worker 0' }), (line) => trace.push(line)),
    training: linearTraining(engine, 0, 1, {
      step: {
        async run(...input) {
          trace.push('worker: computes')
          return await linearStep(engine, batchSize).run(...input)
        },
      },
    }),
  })
  await finished(server, worker)
  const pull = [
    'worker: pull',
    'server: parameters', // ⑤ ⑥
    'server: slices',
  ]
  const update = [
    'worker: computes', // ②
    'worker: push', // ③
    'worker: slices',
    'worker: pull',
    'update', // ④
    'server: applied',
  ]
  expect(trace).toEqual([
    'worker: hello', // ①
    'peer-joined',
    'server: welcome',
    ...pull,
    ...update,
    ...pull.slice(1),
    ...update,
    'server: evaluate',
    ...pull,
    ...pull.slice(0, 2), // The second batch: the parameters are held.
    'worker: scores',
    'evaluation',
    'worker: pull',
    'checkpointed',
    'server: finished',
    'peer-left',
    'traffic',
    'finished',
  ])
})

describe('synchronous', () => {
  async function run(totalUpdates: number, delays: readonly [number, number] = [0, 0]) {
    const server = startServer(engine, { job: { totalUpdates }, schedule })
    const workers = [0, 1].map((index) =>
      startWorker(engine, () => server.wire, index, {
        training: linearTraining(engine, index, 2, { batch: delayed(delays[index]!) }),
      }),
    )
    const [result] = await finished(server, ...workers)
    return { server, workers, result, model: server.saved.at(-1)! }
  }

  const delayed = (delayMs: number) => async (task: Task) => {
    await new Promise((resolve) => setTimeout(resolve, delayMs))
    return await linearBatch(task)
  }

  test('two workers with batch b equal one process with batch 2b', async () => {
    const [federated, alone] = [await run(8), await local(2 * batchSize, 8)]
    expect(federated.model.version).toBe(8)
    for (const [name, values] of Object.entries(alone.model.values)) {
      for (const [index, value] of values.entries()) {
        expect(Math.abs(federated.model.values[name]![index]! - value), `${name}[${index}]`).toBeLessThan(2e-6)
      }
    }
    const { scores, examples } = federated.result.heldOut
    expect(examples).toBe(4 * batchSize)
    expect(scores.loss).toBeCloseTo((alone.scores as typeof federated.result.heldOut).scores.loss!, 5)
    expect(scores.accuracy).toBe((alone.scores as typeof federated.result.heldOut).scores.accuracy)
  })

  test('bit for bit the same whoever is faster', async () => {
    const runs = [await run(5, [0, 4]), await run(5, [4, 0])]
    expect(runs[0]!.model).toEqual(runs[1]!.model)
  })

  test('one worker equals one process bit for bit', async () => {
    const server = startServer(engine, {
      job: { workers: 1, totalUpdates: 7 },
      createStrategy: () => allOf(1),
      schedule,
    })
    const worker = startWorker(engine, () => server.wire, 0, { training: linearTraining(engine) })
    const [result] = await finished(server, worker)
    const alone = await local(batchSize, 7)
    expect(server.saved.at(-1)).toEqual(alone.model)
    expect(result.heldOut).toEqual(alone.scores)
  })

  test('each step has its own seed', async () => {
    const step = linearStep(engine, batchSize)
    const server = startServer(engine, { job: { workers: 1, totalUpdates: 3 }, createStrategy: () => allOf(1) })
    await finished(
      server,
      startWorker(engine, () => server.wire, 0, {
        training: linearTraining(engine, 0, 1, { step, seed: (shard) => 99 + shard }),
      }),
    )
    expect(step.seeds).toEqual([
      [99, 0],
      [99, 1],
      [99, 2],
    ])
  })

  test('every update reports rate, staleness and how many it was made of', async () => {
    const { server, workers, result } = await run(4)
    const updates = kinds(server.events, 'update')
    expect(updates.map(({ step, staleness, contributions }) => [step, staleness, contributions])).toEqual([
      [1, 0, 2],
      [2, 0, 2],
      [3, 0, 2],
      [4, 0, 2],
    ])
    expect(updates.map(({ learningRate }) => learningRate)).toEqual([0, 1, 2, 3].map(schedule))
    const losses = workers.map(({ events }) => kinds(events, 'step').map(({ loss }) => loss))
    for (const [index, { loss }] of updates.entries()) {
      expect(loss).toBeCloseTo((losses[0]![index]! + losses[1]![index]!) / 2, 12)
    }
    expect(result).toMatchObject({ reason: 'complete', version: 4, examples: 4 * 2 * batchSize })
  })

  test('scores and saves on the way', async () => {
    const server = startServer(engine, { job: { totalUpdates: 6, evaluateEvery: 2, saveEvery: 3 } })
    const result = await finished(server, ...[0, 1].map((index) => startWorker(engine, () => server.wire, index)))
    const evaluations = kinds(server.events, 'evaluation')
    expect(evaluations.map(({ step, examples }) => [step, examples])).toEqual([2, 4, 6].map((step) => [step, 24]))
    expect(evaluations.at(-1)?.scores).toEqual(result[0].heldOut.scores)
    expect(evaluations[0]!.scores.loss).toBeGreaterThan(evaluations[2]!.scores.loss!)
    expect(server.checkpoints.steps).toEqual([3, 6])
    expect(kinds(server.events, 'checkpointed').map(({ step }) => step)).toEqual([3, 6])
    expect(server.saved.map(({ version }) => version)).toEqual([6])
  })
})

test('saves when the time has come, counted from the last save', async () => {
  const clock = new FakeClock()
  const settings = { createStrategy: () => allOf(1), clock, job: { totalUpdates: 7, saveEveryMs: 100 } }
  const server = startServer(engine, {
    ...settings,
    events: ({ kind }) => {
      if (kind === 'update') clock.advance(40)
    },
  })
  await finished(
    server,
    startWorker(engine, () => server.wire, 0, { training: linearTraining(engine) }),
  )
  // Updates end at 40, 80, 120, …: the first save begins at 120, the second at 240; the last is that of the end.
  expect(server.checkpoints.steps).toEqual([3, 6, 7])
})

describe('asynchronous', () => {
  /**
   * Worker 1 takes the parameters of version 0 and is held in its step until version 3; worker 0 then waits until worker 1
   * has been answered. So the fourth push is exactly three updates old.
   */
  async function run(maxStaleness: number) {
    const [joined, held, answered] = [new Deferred<void>(), new Deferred<void>(), new Deferred<void>()]
    const server = startServer(engine, {
      job: { totalUpdates: 6, evaluateEvery: 2, synchronous: false },
      createStrategy: () => asynchronous({ maxStaleness, stalenessExponent: 0.5 }),
      schedule: constant(0.1),
      events: (event) => {
        if (event.kind === 'update' && event.step === 3) held.resolve()
        if (event.kind === 'update-refused' || (event.kind === 'update' && event.step > 3)) answered.resolve()
      },
    })
    const gated = (gate: (step: number) => Promise<void> | undefined): Partial<TrainingOptions> => {
      const sound = linearStep(engine, batchSize)
      let step = 0
      return {
        step: {
          async run(...input) {
            await gate(step++)
            return await sound.run(...input)
          },
        },
      }
    }
    const slow = startWorker(engine, () => server.wire, 1, {
      synchronous: false,
      training: linearTraining(
        engine,
        1,
        2,
        gated((step) => {
          joined.resolve()
          return step === 0 ? held.promise : undefined
        }),
      ),
    })
    await joined.promise
    const fast = startWorker(engine, () => server.wire, 0, {
      synchronous: false,
      training: linearTraining(
        engine,
        0,
        2,
        gated((step) => (step === 3 ? answered.promise : undefined)),
      ),
    })
    const [result] = await finished(server, fast, slow)
    return { server, slow, result }
  }

  test('with prefetch a lone worker takes its parameters one update early, and none of its batches twice', async () => {
    const positions: number[] = []
    const server = startServer(engine, {
      job: { workers: 1, totalUpdates: 6, synchronous: false },
      createStrategy: () => asynchronous({ stalenessExponent: 0 }),
    })
    const worker = startWorker(engine, () => server.wire, 0, {
      synchronous: false,
      prefetch: true,
      training: linearTraining(engine, 0, 1, {
        batch: async (task) => {
          positions.push(task.position)
          return await linearBatches(batchSize)(task)
        },
      }),
    })
    await finished(server, worker)
    const updates = kinds(server.events, 'update').map(({ staleness }) => staleness)
    expect(updates[0]).toBe(0)
    expect(updates.slice(1)).toEqual([1, 1, 1, 1, 1])
    expect(positions.slice(0, 6)).toEqual([0, 1, 2, 3, 4, 5])
    expect(new Set(positions).size).toBe(positions.length)
  })

  test('each push is applied as it comes, with its staleness measured and the rate weighted by it', async () => {
    const { server, result } = await run(3)
    const updates = kinds(server.events, 'update')
    expect(updates.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6])
    expect(updates.map(({ contributions }) => contributions)).toEqual([1, 1, 1, 1, 1, 1])
    expect(updates.slice(0, 4).map(({ staleness }) => staleness)).toEqual([0, 0, 0, 3])
    expect(updates[3]!.learningRate).toBeCloseTo(0.1 / Math.sqrt(4), 12)
    expect(updates[0]!.learningRate).toBe(0.1)
    expect(result).toMatchObject({ reason: 'complete', version: 6, heldOut: { examples: 24 } })
  })

  test('scores on the way are of one version, whatever the workers do meanwhile', async () => {
    const { server } = await run(3)
    const evaluations = kinds(server.events, 'evaluation').map(({ step, examples }) => [step, examples])
    expect(evaluations).toEqual([
      [2, 24],
      [4, 24],
      [6, 24],
    ])
  })

  test('a push beyond the bound is dropped, and its worker goes on with new parameters', async () => {
    const { server, slow, result } = await run(2)
    const stale = { error: { code: 'push-stale', message: expect.stringMatching(/at most 2, got 3/) } }
    expect(kinds(server.events, 'update-refused')[0]).toMatchObject({ worker: 1, step: 3, ...stale })
    expect(kinds(slow.events, 'update-refused')[0]).toMatchObject({ worker: 1, step: 0, ...stale })
    expect(result).toMatchObject({ reason: 'complete', version: 6 })
  })
})
