/** Checkpoints of one and of several servers, what workers remember of them, and what is agreed before training. */
import { afterAll, describe, expect, test } from 'vitest'
import { batchSize, kinds, linearTraining, startServer, startWorker } from '../../test/support/federation.ts'
import { linearBatches } from '../../test/support/linear-training.ts'
import { MemoryCheckpoints } from '../../test/support/memory-checkpoints.ts'
import { type GroupSettings, startServers, startTableWorker, tableState } from '../../test/support/server-group.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Deferred } from './deferred.ts'
import { FederationError } from './federation-error.ts'
import type { PreparationServer, PreparationWorker } from './preparation.ts'
import { asynchronous } from './strategies/asynchronous.ts'
import type { NewestStep } from './worker.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

function storesOf(servers: number): MemoryCheckpoints[] {
  return Array.from({ length: servers }, () => new MemoryCheckpoints())
}

/** Remembers as a worker's sealed file does. */
class Memory implements NewestStep {
  readonly told: number[] = []
  step: number | undefined

  constructor(step?: number) {
    this.step = step
  }

  async remember(step: number): Promise<void> {
    this.told.push(step)
    this.step = Math.max(this.step ?? 0, step)
  }
}

/** Two workers train until the end, or until every server is told to stop at `stopAt`. */
async function run(settings: Partial<GroupSettings> & { stopAt?: number; newestSeen?: NewestStep[] } = {}) {
  const { stopAt, newestSeen, ...rest } = settings
  const group = startServers(engine, {
    servers: 2,
    workers: 2,
    totalUpdates: 8,
    ...rest,
    events: (event) => {
      rest.events?.(event)
      if (event.kind === 'update' && event.step === stopAt) group.servers[0]!.stop.abort()
    },
  })
  const workers = [0, 1].map((worker) => {
    const seen = newestSeen?.[worker]
    return startTableWorker(engine, group, worker, seen === undefined ? {} : { newestSeen: seen })
  })
  await Promise.all(group.servers.map(({ result }) => result))
  for (const { stop } of workers) if (stopAt !== undefined) stop.abort()
  await Promise.all(workers.map(({ result }) => result))
  return { group, workers }
}

describe('resumed', () => {
  test.each([1, 2, 3])('%i servers: the same bits as without a pause', async (servers) => {
    const whole = storesOf(servers)
    const { group } = await run({ servers, stores: whole })
    const stores = storesOf(servers)
    await run({ servers, stores, stopAt: 5 })
    for (const store of stores) expect(store.steps).toEqual([5])
    const resumed = await run({ servers, stores })
    for (const { events } of resumed.group.servers) {
      expect(kinds(events, 'resumed')).toMatchObject([{ step: 5 }])
      expect(kinds(events, 'update').map(({ step }) => step)).toEqual([6, 7, 8])
    }
    expect(tableState(resumed.group)).toEqual(tableState(group))
    for (const [server, store] of stores.entries()) expect(store.state(8)).toEqual(whole[server]!.state(8))
  })

  test('incremental rows add up to the whole table', async () => {
    const [often, once] = [storesOf(1), storesOf(1)]
    await run({ servers: 1, stores: often, job: { saveEvery: 1 } })
    await run({ servers: 1, stores: once })
    expect(often[0]!.steps.length).toBeGreaterThan(3)
    expect(often[0]!.state(8)).toEqual(once[0]!.state(8))
  })

  test('from the newest step that all servers have; what is newer is given up', async () => {
    const stores = storesOf(2)
    const { group } = await run({ stores, job: { saveEvery: 2 } })
    const steps = stores.map(({ steps }) => steps)
    expect(steps[0]).toEqual(steps[1])
    const common = steps[0]![0]!
    const unequal = [stores[0]!, stores[1]!.copy(common)]
    const resumed = await run({ stores: unequal })
    for (const { events } of resumed.group.servers) expect(kinds(events, 'resumed')).toMatchObject([{ step: common }])
    expect(tableState(resumed.group)).toEqual(tableState(group))
    for (const store of unequal) expect(store.steps).toEqual([common, 8])
  })

  test('all begin anew when they have no step in common', async () => {
    const stores = storesOf(2)
    const { group } = await run({ stores })
    const resumed = await run({ stores: [stores[0]!, new MemoryCheckpoints()] })
    for (const { events } of resumed.group.servers) expect(kinds(events, 'resumed')).toEqual([])
    expect(tableState(resumed.group)).toEqual(tableState(group))
  })
})

describe('a save that fails', () => {
  const full = new FederationError('checkpoint-unusable', 'expected room on the disk, got none', { hint: 'make room' })

  test.each([0, 1])(
    'on server %i: training goes on, nobody is told of that step, the next one counts',
    async (server) => {
      const stores = storesOf(2)
      stores[server]!.failure = full
      const newestSeen = [new Memory(), new Memory()]
      const { group } = await run({
        stores,
        newestSeen,
        job: { saveEvery: 2 },
        events: (event) => {
          if (event.kind === 'update' && event.step === 5) stores[server]!.failure = undefined
        },
      })
      const warnings = kinds(group.servers[server]!.events, 'warning').map(({ error }) => error.code)
      expect(warnings).toContain('checkpoint-unusable')
      expect(stores[server]!.steps).not.toContain(2)
      for (const { told } of newestSeen) expect(told).not.toContain(2)
      expect(stores[server]!.steps.at(-1)).toBe(8)
      const undisturbed = storesOf(2)
      await run({ stores: undisturbed })
      for (const [index, store] of stores.entries()) expect(store.state(8)).toEqual(undisturbed[index]!.state(8))
    },
  )
})

describe('a server that comes back older', () => {
  /** Trained to the end with saves on the way; what workers were told was on every disk when they were. */
  async function trained() {
    const stores = storesOf(2)
    const newestSeen = [new Memory(), new Memory()]
    const checked: boolean[] = []
    for (const memory of newestSeen) {
      const { remember } = memory
      memory.remember = (step) => {
        checked.push(step === 0 || stores.every(({ steps }) => steps.includes(step)))
        return remember.call(memory, step)
      }
    }
    await run({ stores, newestSeen, job: { saveEvery: 2 } })
    expect(checked.length).toBeGreaterThan(2)
    expect(checked).not.toContain(false)
    return { stores, newestSeen }
  }

  test('is refused, with the steps and what to do', async () => {
    const { stores, newestSeen } = await trained()
    const [first] = stores[0]!.steps
    const seen = newestSeen[0]!.step!
    expect(seen).toBeGreaterThan(first!)
    const group = startServers(engine, {
      servers: 2,
      workers: 2,
      totalUpdates: 10,
      stores: stores.map((store) => store.copy(first!)),
    })
    const worker = startTableWorker(engine, group, 0, { newestSeen: newestSeen[0]! })
    await expect(worker.result).rejects.toMatchObject({
      code: 'server-rolled-back',
      message: `expected a server with step ${seen} on disk, got one with ${first}`,
      hint: expect.stringContaining('rollback'),
    })
    expect(newestSeen[0]!.step).toBe(seen)
    expect(kinds(group.servers[0]!.events, 'update')).toEqual([])
    for (const { stop } of group.servers) stop.abort()
    await Promise.allSettled(group.servers.map(({ result }) => result))
  })

  test('is followed when the job accepts it', async () => {
    const { stores, newestSeen } = await trained()
    const [first] = stores[0]!.steps
    const group = startServers(engine, {
      servers: 2,
      workers: 2,
      totalUpdates: 9,
      stores: stores.map((store) => store.copy(first!)),
    })
    const workers = newestSeen.map((memory, worker) =>
      startTableWorker(engine, group, worker, { newestSeen: memory, acceptRollback: true }),
    )
    for (const { result } of workers) expect(await result).toMatchObject({ reason: 'complete' })
    expect(await group.servers[0]!.result).toMatchObject({ version: 9 })
    await group.servers[1]!.result
  })

  test('updates since the newest save may be lost: that is no rollback', async () => {
    const stores = storesOf(2)
    const newestSeen = [new Memory(), new Memory()]
    await run({ stores, newestSeen, job: { saveEvery: 3 }, stopAt: 4 })
    const copies = stores.map((store) => store.copy(3))
    const { group } = await run({ stores: copies, newestSeen })
    expect(kinds(group.servers[0]!.events, 'resumed')).toMatchObject([{ step: 3 }])
    expect(await group.servers[0]!.result).toMatchObject({ reason: 'complete', version: 8 })
  })
})

describe('preparation', () => {
  /** Joins what all workers contribute, in their order. */
  class Joining implements PreparationServer {
    readonly contributed = new Map<number, string>()
    restored: string | undefined

    begin(worker: number) {
      let text = ''
      return {
        accept: (part: Uint8Array) => {
          text += Buffer.from(part).toString()
        },
        end: () => {
          this.contributed.set(worker, text)
        },
      }
    }

    *result() {
      const all = [...this.contributed].sort(([a], [b]) => a - b).map(([, text]) => text)
      for (const part of all) yield Buffer.from(part)
    }

    restore(parts: Iterable<Uint8Array>) {
      this.restored = Buffer.concat([...parts]).toString()
    }
  }

  class Party implements PreparationWorker {
    readonly #parts: readonly string[]
    asked = 0
    agreed: string | undefined

    constructor(...parts: string[]) {
      this.#parts = parts
    }

    async *contribution() {
      this.asked++
      for (const part of this.#parts) yield Buffer.from(part)
    }

    begin() {
      let text = ''
      return {
        accept: (part: Uint8Array) => {
          text += Buffer.from(part).toString()
        },
        end: () => {
          this.agreed = text
        },
      }
    }
  }

  test('everybody gets what came of all contributions, and nobody trains before', async () => {
    const preparation = new Joining()
    const server = startServer(engine, { preparation, job: { totalUpdates: 2 } })
    const [first, second] = [new Party('a', 'b'), new Party('c')]
    const early = startWorker(engine, () => server.wire, 0, { preparation: first })
    while (preparation.contributed.size === 0) await new Promise(setImmediate)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect([first.agreed, kinds(server.events, 'update').length]).toEqual([undefined, 0])
    const late = startWorker(engine, () => server.wire, 1, { preparation: second })
    await Promise.all([server.result, early.result, late.result])
    expect([first.agreed, second.agreed]).toEqual(['abc', 'abc'])
  })

  test('is not repeated: a resumed server has the result, and asks nobody', async () => {
    const first = startServer(engine, { preparation: new Joining(), job: { totalUpdates: 2 } })
    const parties = [new Party('x'), new Party('y')]
    const workers = parties.map((preparation, worker) => startWorker(engine, () => first.wire, worker, { preparation }))
    await Promise.all([first.result, ...workers.map(({ result }) => result)])
    const preparation = new Joining()
    const second = startServer(engine, { preparation, checkpoints: first.checkpoints, job: { totalUpdates: 4 } })
    const others = [new Party('z'), new Party('z')]
    const again = others.map((party, worker) => startWorker(engine, () => second.wire, worker, { preparation: party }))
    await Promise.all([second.result, ...again.map(({ result }) => result)])
    expect(preparation.restored).toBe('xy')
    expect(others.map(({ asked, agreed }) => [asked, agreed])).toEqual([
      [0, 'xy'],
      [0, 'xy'],
    ])
  })

  test('a worker that is lost in the middle of its contribution begins again', async () => {
    const preparation = new Joining()
    const server = startServer(engine, { preparation, job: { workers: 1, totalUpdates: 2 }, limits: {} })
    let attempts = 0
    const party = new Party('one', 'two')
    const flaky: PreparationWorker = {
      begin: () => party.begin(),
      async *contribution() {
        for await (const part of party.contribution()) {
          yield part
          if (attempts++ === 0) throw new FederationError('peer-lost', 'cut', { hint: '' })
        }
      },
    }
    const worker = startWorker(engine, () => server.wire, 0, { preparation: flaky })
    while (preparation.contributed.size === 0) await new Promise(setImmediate)
    expect(preparation.contributed.get(0)).toBe('onetwo')
    expect(await worker.result).toMatchObject({ reason: 'complete' })
    await server.result
    expect(party.agreed).toBe('onetwo')
  })
})

describe('who takes part', () => {
  test('nobody trains before the minimum is there', async () => {
    const server = startServer(engine, { job: { totalUpdates: 2, minimumToStart: 2 } })
    const first = startWorker(engine, () => server.wire, 0)
    while (kinds(first.events, 'peer-joined').length === 0) await new Promise(setImmediate)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(kinds(first.events, 'step')).toEqual([])
    const second = startWorker(engine, () => server.wire, 1)
    await Promise.all([server.result, first.result, second.result])
    expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 2])
  })

  test('the shard of a worker that stays away goes to another, where it was, and back when it returns', async () => {
    const tasks: [worker: number, shard: number, position: number][] = []
    const noted = (worker: number) =>
      linearTraining(engine, worker, 2, {
        batch: async (task) => {
          tasks.push([worker, task.shard, task.position])
          // Other workers and their deadlines have their turn.
          await new Promise((resolve) => setTimeout(resolve, 1))
          return await linearBatches(batchSize, 2)(task)
        },
      })
    const [moved, shared] = [new Deferred<void>(), new Deferred<void>()]
    const server = startServer(engine, {
      job: { totalUpdates: 60, synchronous: false, moveShardsAfterMs: 5 },
      createStrategy: () => asynchronous({ stalenessExponent: 0 }),
      events: (event) => {
        if (event.kind === 'reassigned') moved.resolve()
      },
    })
    const leaving = startWorker(engine, () => server.wire, 1, {
      synchronous: false,
      training: noted(1),
      events: (event) => {
        if (event.kind === 'step' && event.step >= 2) leaving.stop.abort()
      },
    })
    expect(await leaving.result).toMatchObject({ reason: 'stopped' })
    const done = leaving.events.filter(({ kind }) => kind === 'step').length
    const staying = startWorker(engine, () => server.wire, 0, {
      synchronous: false,
      training: noted(0),
      events: () => {
        if (tasks.some(([worker, shard]) => worker === 0 && shard === 1)) shared.resolve()
      },
    })
    await moved.promise
    expect(kinds(server.events, 'reassigned')).toMatchObject([{ shard: 1, from: 1, to: 0 }])
    await shared.promise
    const taken = tasks.find(([worker, shard]) => worker === 0 && shard === 1)!
    expect(taken[2]).toBeGreaterThanOrEqual(done)
    expect(taken[2]).toBeLessThanOrEqual(done + 1)
    const returned = startWorker(engine, () => server.wire, 1, { synchronous: false, training: noted(1) })
    const before = tasks.length
    await Promise.all([server.result, staying.result, returned.result])
    const own = tasks.slice(before).filter(([worker]) => worker === 1)
    expect(own.length).toBeGreaterThan(0)
    expect(own.every(([, shard]) => shard === 1)).toBe(true)
    expect(own[0]![2]).toBeGreaterThan(taken[2] - 1)
  })
})
