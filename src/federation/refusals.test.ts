/**
 * Everything that a peer may get wrong, over the in-memory transport: it is told why under a code, the log has it, and the
 * other side survives, here shown by an honest worker that finishes its job afterwards.
 */
import { afterAll, describe, expect, test } from 'vitest'
import { FakeClock } from '../../test/support/fake-clock.ts'
import {
  allOf,
  batchSize,
  connectTo,
  helloOf,
  kinds,
  linearTraining,
  type NamedPeer,
  overheard,
  type RunningServer,
  startServer,
  startWorker,
  type WorkerConnection,
} from '../../test/support/federation.ts'
import { linearManifest, linearStep } from '../../test/support/linear-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Deferred } from './deferred.ts'
import { workerMessage } from './protocol/messages.ts'
import { RemoteServer } from './protocol/remote-server.ts'
import type { Hello } from './protocol/remote-worker.ts'
import { Training } from './training.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

/** One worker is enough for an update, so the hostile one can't hold the others up. */
function start(settings: Parameters<typeof startServer>[1] = {}): RunningServer {
  return startServer(engine, { strategy: allOf(1), ...settings, job: { totalUpdates: 3, ...settings.job } })
}

async function honestWorkerFinishes(server: RunningServer): Promise<void> {
  const worker = startWorker(engine, () => server.wire, 0, { training: linearTraining(engine) })
  expect(await worker.result).toMatchObject({ reason: 'complete' })
  expect(await server.result).toMatchObject({ reason: 'complete', version: 3 })
}

type Body = Parameters<typeof workerMessage>[0]

function say(connection: WorkerConnection, ...bodies: Body[]): Promise<unknown> {
  return Promise.all(bodies.map((body) => connection.send(workerMessage(body))))
}

/** The code under which the server refuses; what else it says before is passed over. */
async function refusal(connection: WorkerConnection): Promise<string | undefined> {
  try {
    for await (const { message } of connection.incoming) if (message.case === 'refused') return message.value.code
  } catch (error) {
    return `threw ${(error as Error).message}`
  } finally {
    connection.destroy()
  }
  return undefined
}

function greeting(changes: Partial<Hello> = {}, protocol = 1): Body {
  return { case: 'hello', value: { protocol, ...helloOf(1, changes) } }
}

describe('a worker that is not admitted', () => {
  test.each<[string, Body, string, NamedPeer?]>([
    ['another protocol version', greeting({}, 2), 'protocol-unsupported'],
    ['another job', greeting({ jobDigest: new Uint8Array(32).fill(9) }), 'job-mismatch'],
    ['a short digest', greeting({ jobDigest: new Uint8Array(31).fill(1) }), 'hello-malformed'],
    ['no session', greeting({ session: new Uint8Array() }), 'hello-malformed'],
    ['an index beyond the job', greeting({ worker: 2 }), 'worker-index-unknown'],
    ['an index that is not its own', greeting(), 'worker-index-forbidden', { name: 'bound', workerIndex: 0 }],
    ['an empty shard', greeting({ examples: 0 }), 'worker-without-examples'],
    ['no Hello', { case: 'push', value: { baseVersion: 0, examples: 1, loss: 1 } }, 'message-unexpected'],
    ['a message of no kind', { case: undefined } as unknown as Body, 'message-unexpected'],
  ])('%s', async (_, hello, code, peer = { name: 'intruder' }) => {
    const server = start()
    const connection = await connectTo(server.wire, peer)
    await say(connection, hello)
    expect(await refusal(connection)).toBe(code)
    await honestWorkerFinishes(server)
    expect(kinds(server.events, 'peer-refused')).toMatchObject([{ address: peer.name, error: { code } }])
  })

  test('another data plan than the first worker has', async () => {
    const server = start()
    const first = await connectTo(server.wire, { name: 'first' })
    await say(first, { case: 'hello', value: { protocol: 1, ...helloOf(0) } })
    const messages = first.incoming[Symbol.asyncIterator]()
    expect((await messages.next()).value?.message.case).toBe('welcome')
    const second = await connectTo(server.wire, { name: 'second' })
    await say(second, greeting({ planDigest: new Uint8Array(32).fill(9) }))
    expect(await refusal(second)).toBe('plan-mismatch')
    first.destroy()
    await honestWorkerFinishes(server)
  })

  test('a second worker with the same index; the first goes on', async () => {
    const server = start()
    const first = await connectTo(server.wire, { name: 'first' })
    await say(first, { case: 'hello', value: { protocol: 1, ...helloOf(0) } })
    const messages = first.incoming[Symbol.asyncIterator]()
    expect((await messages.next()).value?.message.case).toBe('welcome')
    const second = startWorker(engine, () => server.wire, 0, { hello: { session: new Uint8Array(16).fill(5) } })
    await expect(second.result).rejects.toMatchObject({ code: 'worker-index-taken' })
    expect((await messages.next()).value?.message.case).toBe('assignment')
    first.destroy()
    await honestWorkerFinishes(server)
    expect(kinds(server.events, 'peer-refused')).toMatchObject([{ error: { code: 'worker-index-taken' } }])
  })

  test('silence is ended by a deadline', async () => {
    const clock = new FakeClock()
    const server = start({ clock, limits: { helloMs: 700, withoutWorkersMs: 1e9 } })
    const connection = await connectTo(server.wire, { name: 'silent' })
    while (clock.alarms < 2) await new Promise(setImmediate)
    clock.advance(700)
    expect(await refusal(connection)).toBe('hello-late')
    await honestWorkerFinishes(server)
  })
})

describe('a worker whose pushes are wrong', () => {
  const complete = linearManifest.map(({ elements }, tensor) => ({
    tensor,
    offset: 0,
    values: new Uint8Array(new Float32Array(elements).fill(0.5).buffer),
  }))
  const header = { baseVersion: 0, examples: batchSize, loss: 1 }
  const push = (changes: Partial<typeof header> = {}): Body => ({ case: 'push', value: { ...header, ...changes } })
  const slices = (...which: typeof complete): Body => ({ case: 'slices', value: { slices: which } })
  const [first, ...rest] = complete as [(typeof complete)[0], ...typeof complete]
  const values = (...numbers: number[]) => new Uint8Array(Float32Array.from(numbers).buffer)

  test.each<[string, Body[], string]>([
    ['a stale version that it was not given', [push({ baseVersion: 0xffff_ffff })], 'push-version-mismatch'],
    ['a future version', [push({ baseVersion: 1 })], 'push-version-mismatch'],
    ['no examples', [push({ examples: 0 })], 'push-examples-out-of-range'],
    ['more examples than a batch', [push({ examples: batchSize + 1 })], 'push-examples-out-of-range'],
    ['a loss that is no number', [push({ loss: Number.NaN })], 'loss-not-finite'],
    ['an unknown tensor', [push(), slices({ ...first, tensor: 17 })], 'tensor-unknown'],
    [
      'a longer tensor',
      [push(), slices({ ...first, values: new Uint8Array(first.values.length + 4) })],
      'tensor-too-long',
    ],
    ['a shorter tensor', [push(), slices({ ...first, values: values(1, 2) }, ...rest)], 'slice-misplaced'],
    ['a missing tensor', [push(), slices(...rest)], 'slice-misplaced'],
    ['NaN', [push(), slices({ ...first, values: values(1, Number.NaN) })], 'values-not-finite'],
    ['infinity', [push(), slices({ ...first, values: values(Number.POSITIVE_INFINITY) })], 'values-not-finite'],
    ['values before a header', [slices(...complete)], 'message-unexpected'],
    ['a second push before the answer', [push(), slices(...complete), push()], 'message-unexpected'],
    ['scores that nobody asked for', [{ case: 'scores', value: { version: 0, sums: {} } }], 'message-unexpected'],
    ['a message above the bound', [push(), slices({ ...first, values: new Uint8Array(9 << 20) })], 'too large'],
  ])('%s', async (title, bodies, code) => {
    // Worker 0 is expected too, so that the round stays open and nothing is answered in between.
    const server = start({ strategy: allOf(2) })
    const connection = await connectTo(server.wire, { name: 'hostile' })
    const remote = new RemoteServer(
      connection,
      linearManifest,
      linearManifest.map(({ elements }) => new Float32Array(elements)),
    )
    await remote.join(helloOf(1))
    await remote.assignment()
    if (title === 'a message above the bound') {
      await expect(say(connection, ...bodies)).rejects.toMatchObject({ code: 'message-too-large' })
      connection.destroy()
      await honestWorkerFinishes(server)
      return
    }
    await say(connection, ...bodies)
    await expect(remote.assignment()).rejects.toMatchObject({ code })
    connection.destroy()
    await honestWorkerFinishes(server)
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({ reason: 'refused', error: { code } })
    expect(server.saved.at(-1)?.version).toBe(3)
    expect(Object.values(server.saved.at(-1)!.values).flat().every(Number.isFinite)).toBe(true)
  })
})

describe('a worker whose scores are wrong', () => {
  const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`s${index}`, 1]))
  test.each<[string, Body, string]>([
    ['NaN', { case: 'scores', value: { version: 3, sums: { lossSum: Number.NaN } } }, 'scores-malformed'],
    ['too many', { case: 'scores', value: { version: 3, sums: many } }, 'scores-malformed'],
    ['of another version', { case: 'scores', value: { version: 2, sums: { count: 1 } } }, 'scores-version-mismatch'],
  ])('%s: they do not count', async (_, scores, code) => {
    const evaluated = new Deferred<void>()
    const server = start({
      strategy: allOf(1),
      events: ({ kind }) => {
        if (kind === 'peer-left') evaluated.resolve()
      },
    })
    const connection = await connectTo(server.wire, { name: 'hostile' })
    const targets = linearManifest.map(({ elements }) => new Float32Array(elements))
    const remote = new RemoteServer(connection, linearManifest, targets)
    await remote.join(helloOf(1))
    for (let assignment = await remote.assignment(); assignment.task !== 'evaluate'; ) {
      const values = targets.map((target) => target.map(() => 0))
      await remote.push({ baseVersion: assignment.version, examples: 1, loss: 1, values })
      assignment = await remote.assignment()
    }
    await say(connection, scores)
    await expect(remote.assignment()).rejects.toMatchObject({ code })
    connection.destroy()
    await evaluated.promise
    expect(await server.result).toMatchObject({ reason: 'complete', version: 3, heldOut: { examples: 0 } })
    expect(kinds(server.events, 'peer-left')).toMatchObject([{ reason: 'refused', error: { code } }])
  })
})

test('what a worker says on leaving cannot forge a line of the log', async () => {
  const server = start()
  const connection = await connectTo(server.wire, { name: 'forger' })
  await say(connection, greeting(), {
    case: 'leave',
    value: { code: 'x', message: `bye\n2026-01-01 update step=1${'!'.repeat(5000)}` },
  })
  // It keeps the stream open, which holds nobody up.
  await honestWorkerFinishes(server)
  const { error } = kinds(server.events, 'peer-left').find(({ peer }) => peer === 'worker1')!
  expect(error?.message).toMatch(/^the worker left: x: bye 2026-01-01 update step=1!+$/)
  expect(error?.message.length).toBeLessThan(600)
})

describe('a worker that is itself at fault', () => {
  test('its model has another shape than the server’s: both sides say so', async () => {
    const server = start()
    const manifest = linearManifest.map((entry) =>
      entry.name === 'dense/kernel' ? { ...entry, shape: [...entry.shape].reverse() } : entry,
    )
    const worker = startWorker(engine, () => server.wire, 1, { manifest })
    await expect(worker.result).rejects.toMatchObject({
      code: 'tensor-shape-mismatch',
      message: 'dense/kernel: expected shape [3,4], got [4,3]',
    })
    await honestWorkerFinishes(server)
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({
      error: { code: 'worker-left', message: expect.stringContaining('tensor-shape-mismatch') },
    })
  })

  test.each<[string, { loss?: number; gradient?: number }, string]>([
    ['its gradient is not finite', { gradient: Number.NaN }, 'values-not-finite'],
    ['its loss is not finite', { loss: Number.POSITIVE_INFINITY }, 'loss-not-finite'],
  ])('%s: it stops, and sends nothing of it', async (_, fault, code) => {
    const server = start()
    const sound = linearStep(engine, batchSize)
    const said: string[] = []
    const worker = startWorker(engine, () => server.wire, 1, {
      connect: async () => overheard(await connectTo(server.wire, { name: 'w' }), (line) => said.push(line)),
      training: linearTraining(engine, 1, 2, {
        step: {
          async run(...input) {
            const result = await sound.run(...input)
            if (fault.gradient !== undefined) result.gradients.get('dense/bias')!.data[1] = fault.gradient
            return { ...result, loss: fault.loss ?? result.loss }
          },
        },
      }),
    })
    await expect(worker.result).rejects.toMatchObject({ code })
    expect(said).not.toContain('worker: push')
    await honestWorkerFinishes(server)
    expect(kinds(server.events, 'peer-left')[0]?.error).toMatchObject({ code: 'worker-left' })
  })

  test('its batches fail: the error comes out as it is, and the server is told', async () => {
    const server = start()
    const broken = new RangeError('label 12 at record 7')
    const training = new Training({
      manifest: linearManifest,
      step: linearStep(engine, batchSize),
      evaluation: { run: async () => ({}) },
      batches: {
        [Symbol.asyncIterator]: () => ({
          next: () => Promise.reject(broken),
        }),
      },
      heldOut: async function* () {},
      seed: 0,
    })
    await expect(startWorker(engine, () => server.wire, 1, { training }).result).rejects.toBe(broken)
    await honestWorkerFinishes(server)
  })
})
