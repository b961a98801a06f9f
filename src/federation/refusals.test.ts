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
  honestWorkerFinishes,
  kinds,
  type NamedPeer,
  startForOne,
  startWorker,
  type Wire,
  type WorkerConnection,
} from '../../test/support/federation.ts'
import { linearManifest } from '../../test/support/linear-training.ts'
import { startServers } from '../../test/support/server-group.ts'
import { table, tableManifest } from '../../test/support/table-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { serverOfRow } from './placement.ts'
import { workerMessage } from './protocol/messages.ts'
import type { Hello } from './protocol/worker-claims.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

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

function greeting(changes: Partial<Hello> = {}, protocol = 3): Body {
  return { case: 'hello', value: { protocol, ...helloOf(1, changes) } }
}

describe('a worker that is not admitted', () => {
  test.each<[string, Body, string, NamedPeer?]>([
    ['another protocol version', greeting({}, 1), 'protocol-unsupported'],
    ['another job', greeting({ jobDigest: new Uint8Array(32).fill(9) }), 'job-mismatch'],
    ['a short digest', greeting({ jobDigest: new Uint8Array(31).fill(1) }), 'hello-malformed'],
    ['no session', greeting({ session: new Uint8Array() }), 'hello-malformed'],
    ['an index beyond the job', greeting({ worker: 2 }), 'worker-index-unknown'],
    ['an index that is not its own', greeting(), 'worker-index-forbidden', { name: 'bound', workerIndex: 0 }],
    ['an empty shard', greeting({ examples: 0 }), 'worker-without-examples'],
    ['another placement', greeting({ placementDigest: new Uint8Array(32).fill(9) }), 'placement-mismatch'],
    ['the worker meant another server', greeting({ server: 1 }), 'server-index-unknown'],
    ['a Hello from what attested to be a server', greeting(), 'message-unexpected', { name: 'liar', role: 'follower' }],
    ['no Hello', { case: 'push', value: { pull: 0, examples: 1, loss: 1 } }, 'message-unexpected'],
    ['a message of no kind', { case: undefined } as unknown as Body, 'message-unexpected'],
  ])('%s', async (_, hello, code, peer = { name: 'intruder' }) => {
    const server = startForOne(engine)
    const connection = await connectTo(server.wire, peer)
    await say(connection, hello)
    expect(await refusal(connection)).toBe(code)
    await honestWorkerFinishes(engine, server)
    expect(kinds(server.events, 'peer-refused')).toMatchObject([{ address: peer.name, error: { code } }])
  })

  test('another data plan than the first worker has', async () => {
    const server = startForOne(engine)
    const first = await connectTo(server.wire, { name: 'first' })
    await say(first, { case: 'hello', value: { protocol: 3, ...helloOf(0) } })
    const messages = first.incoming[Symbol.asyncIterator]()
    expect((await messages.next()).value?.message.case).toBe('welcome')
    const second = await connectTo(server.wire, { name: 'second' })
    await say(second, greeting({ planDigest: new Uint8Array(32).fill(9) }))
    expect(await refusal(second)).toBe('plan-mismatch')
    first.destroy()
    await honestWorkerFinishes(engine, server)
  })

  test('a second worker with the same index; the first goes on', async () => {
    const server = startForOne(engine)
    const first = await connectTo(server.wire, { name: 'first' })
    await say(first, { case: 'hello', value: { protocol: 3, ...helloOf(0) } })
    const messages = first.incoming[Symbol.asyncIterator]()
    expect((await messages.next()).value?.message.case).toBe('welcome')
    const second = startWorker(engine, () => server.wire, 0, { hello: { session: new Uint8Array(16).fill(5) } })
    await expect(second.result).rejects.toMatchObject({ code: 'worker-index-taken' })
    await say(first, { case: 'pull', value: { id: 0, evaluate: false, rowCounts: [] } })
    expect((await messages.next()).value?.message.case).toBe('parameters')
    first.destroy()
    await honestWorkerFinishes(engine, server)
    expect(kinds(server.events, 'peer-refused')).toMatchObject([{ error: { code: 'worker-index-taken' } }])
  })

  test('silence is ended by a deadline', async () => {
    const clock = new FakeClock()
    const server = startForOne(engine, { clock, limits: { helloMs: 700, withoutWorkersMs: 1e9 } })
    const connection = await connectTo(server.wire, { name: 'silent' })
    while (clock.alarms < 2) await new Promise(setImmediate)
    clock.advance(700)
    expect(await refusal(connection)).toBe('hello-late')
    await honestWorkerFinishes(engine, server)
  })
})

/** A worker that was admitted and says what the test wants. */
async function hostile(wire: Wire, hello: Partial<Hello> = {}) {
  const connection = await connectTo(wire, { name: 'hostile' })
  await say(connection, { case: 'hello', value: { protocol: 3, ...helloOf(1, hello) } })
  const messages = connection.incoming[Symbol.asyncIterator]()
  const next = async () => (await messages.next()).value?.message
  expect((await next())?.case).toBe('welcome')
  /** Passes over everything before the first of this kind. */
  const until = async (kind: string) => {
    for (;;) {
      const message = await next()
      if (message === undefined || message.case === kind) return message
      if (message.case === 'refused') throw new Error(`refused: ${message.value.code}: ${message.value.message}`)
    }
  }
  return { connection, next, until }
}

const pull = (id: number, rowCounts: number[] = [], evaluate = false): Body => ({
  case: 'pull',
  value: { id, evaluate, rowCounts },
})

describe('a worker whose pulls and pushes are wrong', () => {
  const complete = linearManifest.map(({ elements }, tensor) => ({
    tensor,
    offset: 0,
    values: new Uint8Array(new Float32Array(elements).fill(0.5).buffer),
  }))
  const header = { pull: 0, examples: batchSize, loss: 1 }
  const push = (changes: Partial<typeof header> = {}): Body => ({ case: 'push', value: { ...header, ...changes } })
  const slices = (...which: typeof complete): Body => ({ case: 'slices', value: { slices: which } })
  const [first, ...rest] = complete as [(typeof complete)[0], ...typeof complete]
  const values = (...numbers: number[]) => new Uint8Array(Float32Array.from(numbers).buffer)

  test.each<[string, Body[], string]>([
    ['a push for a pull that was not made', [push({ pull: 7 })], 'pull-unknown'],
    ['the same push twice', [push(), slices(...complete), push()], 'push-duplicate'],
    [
      'a push for a pull that is not answered',
      [push(), slices(...complete), pull(1), push({ pull: 1 })],
      'push-duplicate',
    ],
    ['a pull for the second time', [pull(0)], 'message-unexpected'],
    ['rows of tables that there are not', [pull(1, [3])], 'rows-malformed'],
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
    ['a pull within a push', [push(), pull(1)], 'message-unexpected'],
    ['scores that nobody asked for', [{ case: 'scores', value: { version: 0, sums: {} } }], 'scores-version-mismatch'],
    ['a contribution that nobody asked for', [{ case: 'contribution', value: {} }], 'message-unexpected'],
  ])('%s', async (_, bodies, code) => {
    // Worker 0 is expected too, so that the round stays open and nothing is applied in between.
    const server = startForOne(engine, { createStrategy: () => allOf(2) })
    const { connection, next, until } = await hostile(server.wire)
    await say(connection, pull(0))
    await until('parameters')
    while ((await next())?.case !== 'slices');
    await say(connection, ...bodies)
    expect((await until('refused'))?.value).toMatchObject({ code })
    connection.destroy()
    await honestWorkerFinishes(engine, server)
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({ reason: 'refused', error: { code } })
    expect(server.saved.at(-1)?.version).toBe(3)
    expect(Object.values(server.saved.at(-1)!.values).flat().every(Number.isFinite)).toBe(true)
  })

  test('a message above the bound is not even sent', async () => {
    const server = startForOne(engine, { createStrategy: () => allOf(2) })
    const { connection } = await hostile(server.wire)
    const huge = slices({ ...first, values: new Uint8Array(9 << 20) })
    await expect(say(connection, huge)).rejects.toMatchObject({ code: 'message-too-large' })
    connection.destroy()
    await honestWorkerFinishes(engine, server)
  })

  test('more open pulls than it may have', async () => {
    const server = startForOne(engine, { createStrategy: () => allOf(2), job: { minimumToStart: 2 } })
    const { connection, until } = await hostile(server.wire)
    await say(connection, pull(0), pull(1), pull(2))
    expect((await until('refused'))?.value).toMatchObject({ code: 'pull-too-many' })
    connection.destroy()
    server.stop.abort()
    await server.result
  })
})

describe('a worker whose rows are wrong', () => {
  const ids = (...numbers: number[]): Body => ({
    case: 'rows',
    value: { table: 0, ids: new Uint8Array(Uint32Array.from(numbers).buffer) },
  })
  const gradients = (rows: number, first = 0, value = 0.5): Body => {
    const values = new Uint8Array(new Float32Array(rows * table.width).fill(value).buffer)
    return { case: 'rowSlices', value: { table: 0, first, values } }
  }
  const dense: Body = {
    case: 'slices',
    value: {
      slices: tableManifest.map(({ elements }, tensor) => ({
        tensor,
        offset: 0,
        values: new Uint8Array(elements * Float32Array.BYTES_PER_ELEMENT),
      })),
    },
  }
  const push: Body = { case: 'push', value: { pull: 0, examples: 1, loss: 1 } }
  const sound = [pull(0, [2]), ids(3, 900)]

  test.each<[string, Body[], string]>([
    ['an id beyond the table', [pull(0, [1]), ids(table.rows)], 'row-out-of-range'],
    ['a negative id', [pull(0, [1]), ids(-1)], 'row-out-of-range'],
    ['ids that descend', [pull(0, [2]), ids(5, 4)], 'rows-malformed'],
    ['an id twice', [pull(0, [2]), ids(5, 5)], 'rows-malformed'],
    ['an id twice, in two messages', [pull(0, [2]), ids(5), ids(5)], 'rows-malformed'],
    ['more ids than were announced', [pull(0, [1]), ids(1, 2)], 'rows-malformed'],
    ['ids that are not whole', [pull(0, [1]), { case: 'rows', value: { ids: new Uint8Array(3) } }], 'rows-malformed'],
    [
      'ids of no table',
      [pull(0, [1]), { case: 'rows', value: { table: 1, ids: new Uint8Array(4) } }],
      'rows-malformed',
    ],
    ['an empty message of ids', [pull(0, [1]), ids()], 'rows-malformed'],
    ['a count of no table', [pull(0, [1, 1])], 'rows-malformed'],
    ['more rows than one pull may have', [pull(0, [0xffff_ffff])], 'rows-malformed'],
    ['more rows than the table may hold', [pull(0, [4]), ids(1, 2, 3, 4)], 'table-full'],
    ['no gradients of rows', [...sound, push, dense, push], 'message-unexpected'],
    ['gradients of more rows than were pulled', [...sound, push, dense, gradients(3)], 'rows-malformed'],
    [
      'gradients of part of a row',
      [...sound, push, dense, { case: 'rowSlices', value: { values: new Uint8Array(4) } }],
      'rows-malformed',
    ],
    ['gradients of a later row first', [...sound, push, dense, gradients(1, 1)], 'rows-malformed'],
    ['gradients that are no numbers', [...sound, push, dense, gradients(2, 0, Number.NaN)], 'values-not-finite'],
    ['gradients of rows before the dense ones', [...sound, push, gradients(2)], 'message-unexpected'],
  ])('%s', async (_, bodies, code) => {
    const group = startServers(engine, { servers: 1, workers: 2, totalUpdates: 2, maximumRows: 3 })
    const server = group.servers[0]!
    const { placement } = group.layout
    const { connection, until } = await hostile(server.wire, { placementDigest: placement.digest })
    for (const body of bodies) {
      await say(connection, body)
      // A push is for parameters that have come.
      if (body === sound[1]) await until('rowSlices')
    }
    expect((await until('refused'))?.value).toMatchObject({ code })
    connection.destroy()
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({ reason: 'refused', error: { code } })
    server.stop.abort()
    expect(await server.result).toMatchObject({ reason: 'stopped', version: 0 })
  })

  test('rows of another server', async () => {
    const group = startServers(engine, { servers: 2, workers: 2, totalUpdates: 2 })
    const { connection, until } = await hostile(group.wires[0]!, { placementDigest: group.layout.placement.digest })
    const elsewhere = [1, 2, 3, 4, 5, 6].find((id) => serverOfRow(id, 2) === 1)!
    await say(connection, pull(0, [1]), ids(elsewhere))
    expect((await until('refused'))?.value).toMatchObject({ code: 'rows-malformed' })
    connection.destroy()
    for (const { stop } of group.servers) stop.abort()
    await Promise.all(group.servers.map(({ result }) => result))
  })

  test('rows that are only scored are not made', async () => {
    const group = startServers(engine, { servers: 1, workers: 2, totalUpdates: 2, maximumRows: 3 })
    const server = group.servers[0]!
    const { connection, until } = await hostile(server.wire, { placementDigest: group.layout.placement.digest })
    await say(connection, pull(0, [4], true), ids(1, 2, 3, 4))
    expect((await until('rowSlices'))?.value).toMatchObject({ first: 0 })
    connection.destroy()
    server.stop.abort()
    await server.result
  })
})

describe('a worker whose scores are wrong', () => {
  const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`s${index}`, 1]))
  const histogram = (...counts: number[]) => ({ version: 0, sums: {}, histograms: { h: { counts } } })
  test.each<[string, Extract<Body, { case: 'scores' }>['value'], string]>([
    ['NaN', { version: 0, sums: { lossSum: Number.NaN } }, 'scores-malformed'],
    ['too many', { version: 0, sums: many }, 'scores-malformed'],
    ['a histogram of negative counts', histogram(1, -1), 'scores-malformed'],
    ['a histogram of no numbers', histogram(Number.POSITIVE_INFINITY), 'scores-malformed'],
    ['a histogram without end', histogram(...new Array<number>((1 << 16) + 1).fill(1)), 'scores-malformed'],
    ['of another version', { version: 2, sums: { count: 1 } }, 'scores-version-mismatch'],
  ])('%s: they do not count', async (_, scores, code) => {
    // Nothing is left to train: the server asks for scores at once.
    const server = startForOne(engine, { job: { totalUpdates: 1 } })
    const { connection, until } = await hostile(server.wire)
    const values = {
      slices: linearManifest.map(({ elements }, tensor) => ({ tensor, values: new Uint8Array(elements * 4) })),
    }
    await say(connection, pull(0))
    await until('slices')
    const push: Body = { case: 'push', value: { pull: 0, examples: 1, loss: 1 } }
    await say(connection, push, { case: 'slices', value: values }, pull(1))
    const { version } = (await until('evaluate'))!.value as { version: number }
    expect(version).toBe(1)
    await say(connection, { case: 'scores', value: { ...scores, version: version + scores.version! } })
    expect((await until('refused'))?.value).toMatchObject({ code })
    connection.destroy()
    expect(await server.result).toMatchObject({ reason: 'complete', version: 1, heldOut: { examples: 0 } })
    expect(kinds(server.events, 'peer-left')).toMatchObject([{ reason: 'refused', error: { code } }])
  })
})

test('what a worker says on leaving cannot forge a line of the log', async () => {
  const server = startForOne(engine)
  const connection = await connectTo(server.wire, { name: 'forger' })
  await say(connection, greeting(), {
    case: 'leave',
    value: { code: 'x', message: `bye\n2026-01-01 update step=1${'!'.repeat(5000)}` },
  })
  // It keeps the stream open, which holds nobody up.
  await honestWorkerFinishes(engine, server)
  const { error } = kinds(server.events, 'peer-left').find(({ peer }) => peer === 'worker1')!
  expect(error?.message).toMatch(/^the worker left: x: bye 2026-01-01 update step=1!+$/)
  expect(error?.message.length).toBeLessThan(600)
})
