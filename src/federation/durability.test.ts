/** Checkpoints of one and of several servers, and what workers remember of them. */
import { afterAll, describe, expect, test } from 'vitest'
import { connectTo, kinds, testJob } from '../../test/support/federation.ts'
import { MemoryCheckpoints } from '../../test/support/memory-checkpoints.ts'
import { type GroupSettings, startServers, startTableWorker, tableState } from '../../test/support/server-group.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { FederationError } from './federation-error.ts'
import { workerMessage } from './protocol/messages.ts'
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
  const ended = await Promise.all(group.servers.map(({ result }) => result))
  for (const { stop } of workers) if (stopAt !== undefined) stop.abort()
  await Promise.all(workers.map(({ result }) => result))
  return { group, workers, reasons: new Set(ended.map(({ reason }) => reason)) }
}

describe('resumed', () => {
  test.each([1, 2, 3])('%i servers: the same bits as without a pause', async (servers) => {
    const whole = storesOf(servers)
    const { group } = await run({ servers, stores: whole })
    const stores = storesOf(servers)
    // Who is told to stop is server 0 alone: the others do not take that for the end of training.
    expect((await run({ servers, stores, stopAt: 5 })).reasons).toEqual(new Set(['stopped']))
    for (const store of stores) expect(store.steps).toEqual([5])
    const resumed = await run({ servers, stores })
    expect(resumed.reasons).toEqual(new Set(['complete']))
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
    // Copies do not know that later steps were durable: as if the others had died before these were written.
    const unequal = [stores[0]!.copy(8), stores[1]!.copy(common)]
    const resumed = await run({ stores: unequal })
    for (const { events } of resumed.group.servers) expect(kinds(events, 'resumed')).toMatchObject([{ step: common }])
    expect(tableState(resumed.group)).toEqual(tableState(group))
    for (const store of unequal) expect(store.steps).toEqual([common, 8])
  })

  test('all begin anew when they have no step in common, and no step was ever on disk everywhere', async () => {
    const stores = storesOf(2)
    const { group } = await run({ stores })
    // A copy does not know that its step was durable: as if the leader had died while the other still saved.
    const resumed = await run({ stores: [stores[0]!.copy(8), new MemoryCheckpoints()] })
    for (const { events } of resumed.group.servers) expect(kinds(events, 'resumed')).toEqual([])
    expect(tableState(resumed.group)).toEqual(tableState(group))
  })
})

test('a server that comes without its checkpoints: the first step that was durable is not given up for a new beginning', async () => {
  const stores = storesOf(2)
  await run({ stores })
  expect(stores[0]!.steps).toEqual([8])
  const { servers, wires, layout } = startServers(engine, {
    servers: 2,
    workers: 2,
    totalUpdates: 8,
    stores,
    only: [0],
  })
  const empty = await connectTo(wires[0]!, { name: 'server 1', role: 'follower' })
  const { digest: jobDigest } = testJob
  const { digest: placementDigest } = layout.placement
  const hello = { protocol: 3, jobDigest, placementDigest, server: 1, steps: [], durableStep: 0 }
  await empty.send(workerMessage({ case: 'serverHello', value: hello }))
  await expect(servers[0]!.result).rejects.toMatchObject({ code: 'server-rolled-back' })
  expect(stores[0]!.steps).toEqual([8])
})

describe('a leader that comes without its directory, after one durable checkpoint', () => {
  test('is told so by a follower: nobody begins anew, and nothing is deleted', async () => {
    const stores = storesOf(2)
    await run({ stores })
    expect(stores.map(({ steps }) => steps)).toEqual([[8], [8]])
    const { servers } = startServers(engine, {
      servers: 2,
      workers: 2,
      totalUpdates: 8,
      stores: [new MemoryCheckpoints(), stores[1]!],
    })
    for (const { result } of servers) await expect(result).rejects.toMatchObject({ code: 'server-rolled-back' })
    expect(stores[1]!.steps).toEqual([8])
    expect(kinds(servers[0]!.events, 'peer-left')).toMatchObject([{ peer: 'server1', reason: 'refused' }])
  })

  test('begins anew where the job accepts that', async () => {
    const stores = storesOf(2)
    const { group } = await run({ stores })
    const again = await run({ stores: [new MemoryCheckpoints(), stores[1]!], acceptRollback: true })
    expect(tableState(again.group)).toEqual(tableState(group))
  })
})

test('a follower that saved what the leader could not does not take it for durable', async () => {
  const stores = storesOf(2)
  stores[0]!.failure = new FederationError('checkpoint-unusable', 'expected room on the disk, got none', {
    hint: 'room',
  })
  await run({ stores, job: { saveEvery: 2 } })
  expect(stores[0]!.steps).toEqual([])
  expect(stores[1]!.steps.length).toBeGreaterThan(1)
  expect(stores.map(({ durableStep }) => durableStep)).toEqual([0, 0])
  stores[0]!.failure = undefined
  expect((await run({ stores })).reasons).toEqual(new Set(['complete']))
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
