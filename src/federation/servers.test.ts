/** Several servers as one, over the in-memory transport: tensors and rows spread over them, rounds agreed, one step restored. */
import { afterAll, describe, expect, test } from 'vitest'
import { batchSize, kinds, layoutOf } from '../../test/support/federation.ts'
import { MemoryCheckpoints } from '../../test/support/memory-checkpoints.ts'
import {
  type GroupSettings,
  partOf,
  type ServerGroup,
  startServers,
  startTableWorker,
  tableModel,
  tableState,
} from '../../test/support/server-group.ts'
import { table, tableManifest, tableTraining } from '../../test/support/table-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { fromBfloat16, type Transfer, toBfloat16 } from '../models/bfloat16.ts'
import { systemClock } from './clock.ts'
import { trainLocally } from './local.ts'
import { constant } from './schedules.ts'
import { TensorSet } from './tensor-set.ts'
import { type PreparedBatch, scoreAll } from './training.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

async function undisturbed(servers: number, workers: number, totalUpdates: number, transfer: Transfer = 'float32') {
  const group = startServers(engine, { servers, workers, totalUpdates, transfer })
  const running = Array.from({ length: workers }, (_, worker) => startTableWorker(engine, group, worker))
  const results = await Promise.all(running.map(({ result }) => result))
  await Promise.all(group.servers.map(({ result }) => result))
  return { group, running, results, state: tableState(group) }
}

describe('synchronous', () => {
  test('the model has the same bits on one, two and three servers', async () => {
    const [one, two, three] = [await undisturbed(1, 2, 5), await undisturbed(2, 2, 5), await undisturbed(3, 2, 5)]
    expect(one.state.rows.size).toBeGreaterThan(20)
    expect(two.state).toEqual(one.state)
    expect(three.state).toEqual(one.state)
    for (const { results, group } of [two, three]) {
      expect(results).toMatchObject([{ reason: 'complete' }, { reason: 'complete' }])
      const servers = group.servers.slice(1).map((_, follower) => `server${follower + 1}`)
      const joined = kinds(group.servers[0]!.events, 'peer-joined').map(({ peer }) => peer)
      expect(joined.sort()).toEqual([...servers, 'worker0', 'worker1'])
      for (const { events } of group.servers) {
        for (const left of kinds(events, 'peer-left')) expect(left).toMatchObject({ reason: 'finished' })
      }
      for (const { events } of group.servers) {
        expect(kinds(events, 'update').map(({ step, contributions }) => [step, contributions])).toEqual(
          [1, 2, 3, 4, 5].map((step) => [step, 2]),
        )
      }
    }
  })

  test('two workers with batch b equal one process with batch 2b, rows of the table too', async () => {
    const [federated, model] = [await undisturbed(2, 2, 6), tableModel(engine, layoutOf(tableManifest, [table], 1), 0)]
    const { heldOut } = await trainLocally({
      engine,
      model,
      training: tableTraining(engine, 0, 1, 2 * batchSize),
      schedule: constant(0.1),
      totalUpdates: 6,
      evaluateEvery: 0,
      clock: systemClock,
      events: () => undefined,
      signal: new AbortController().signal,
    })
    const alone = partOf(model)
    const begun = partOf(tableModel(engine, layoutOf(tableManifest, [table], 1), 0))
    const trained = [...alone.rows].filter(([id, row]) => row.some((value, at) => value !== begun.rows.get(id)![at]))
    expect(trained.length).toBeGreaterThan(40)
    const close = (got: readonly number[], expected: readonly number[], what: string): void => {
      expect(got.length).toBe(expected.length)
      for (const [at, value] of expected.entries()) {
        expect(Math.abs(got[at]! - value), `${what}[${at}]`).toBeLessThan(2e-6)
      }
    }
    for (const [id, row] of alone.rows) close(federated.state.rows.get(id)!, row, `row ${id}`)
    for (const [name, values] of alone.tensors) close(federated.state.tensors.get(name)!, values, name)
    expect(federated.results[0]!.scores.loss).toBeCloseTo(heldOut.scores.loss!, 5)
  })

  test('scores are the same however many servers there are', async () => {
    const scores = await Promise.all(
      [1, 2].map(async (servers) => (await undisturbed(servers, 2, 3)).results[0]!.scores),
    )
    expect(scores[0]!.loss).toBeGreaterThan(0)
    expect(scores[1]).toEqual(scores[0])
  })
})

describe('bfloat16 on the wire', () => {
  test('the model has the same bits on one, two and three servers, and others than with float32', async () => {
    const [one, two, three] = await Promise.all([1, 2, 3].map((servers) => undisturbed(servers, 2, 5, 'bfloat16')))
    expect(two!.state).toEqual(one!.state)
    expect(three!.state).toEqual(one!.state)
    expect(one!.state).not.toEqual((await undisturbed(1, 2, 5)).state)
  })

  test('parameters, rows and gradients are rounded on their way; statistics, scores and what the server keeps are not', async () => {
    const updates = 4
    const federated = await undisturbed(1, 1, updates, 'bfloat16')
    const model = tableModel(engine, layoutOf(tableManifest, [table], 1), 0)
    const training = tableTraining(engine, 0, 1, batchSize)
    const rowsFor = ({ rows: [ids] }: PreparedBatch, sent: (values: Float32Array) => Float32Array) => {
      const values = new Float32Array(ids!.length * table.width)
      model.tables.get(table.name)!.gather(ids!, values, { create: true })
      const data = new Float32Array(2 * batchSize * table.width)
      data.set(sent(values))
      return [{ shape: [2 * batchSize, table.width], dtype: 'float32' as const, data }]
    }
    for (let position = 0; position < updates; position++) {
      const prepared = await training.batch({ shard: 0, position })
      const snapshot = model.snapshot()
      const parameters = new Map(
        [...snapshot.parameters.named()].map(([name, tensor]) => {
          const { role } = tableManifest.find((entry) => entry.name === name)!
          const data = tensor.data as Float32Array
          return [name, { ...tensor, data: role === 'statistic' ? data : throughBfloat16(data) }]
        }),
      )
      const task = { shard: 0, position }
      const signal = new AbortController().signal
      const update = await training.computeUpdate(
        parameters,
        rowsFor(prepared, throughBfloat16),
        prepared,
        task,
        signal,
      )
      const values = TensorSet.allocate(engine, tableManifest)
      for (const [index, { role }] of tableManifest.entries()) {
        const computed = update.values[index] as Float32Array
        values.tensors[index]!.set(role === 'statistic' ? computed : throughBfloat16(computed))
      }
      const gradients = throughBfloat16(update.rows[0] as Float32Array)
      const rows = new Map([[table.name, { ids: prepared.rows[0]!, gradients }]])
      await model.apply([{ worker: 0, examples: batchSize, values, rows }], 0.1)
      snapshot.release()
    }
    const state = partOf(model)
    expect(federated.state.rows).toEqual(state.rows)
    expect(federated.state.tensors).toEqual(new Map(state.tensors))
    const { parameters, release } = model.snapshot()
    const sums = await scoreAll(training, (prepared) =>
      training.score(
        parameters.named(),
        rowsFor(prepared, (values) => values),
        prepared,
      ),
    )
    release()
    expect(federated.results[0]!.scores.loss).toBe((sums.lossSum as number) / (sums.count as number))
  })
})

/** What a value is after it has travelled. */
function throughBfloat16(values: Float32Array): Float32Array {
  return fromBfloat16(toBfloat16(values))
}

describe('a follower that loses its leader', () => {
  /** Cuts the newest connection between servers when `when` says so, from the follower's side: it notices first. */
  async function run(when: (kind: string, told: number) => boolean, settings: Partial<GroupSettings> = {}) {
    let [told, cuts] = [0, 0]
    const links: { destroy(): void }[] = []
    const group = startServers(engine, {
      servers: 2,
      workers: 2,
      totalUpdates: 6,
      job: { saveEvery: 2 },
      ...settings,
      onLink: (link) => links.push(link),
      events: ({ kind }) => {
        if (cuts === 0 && when(kind, ++told)) {
          cuts++
          links.at(-1)!.destroy()
        }
      },
    })
    const running = [0, 1].map((worker) => startTableWorker(engine, group, worker))
    await Promise.all(running.map(({ result }) => result))
    expect(cuts).toBe(1)
    return group
  }

  async function finished({ servers }: ServerGroup): Promise<void> {
    await Promise.all(servers.map(({ result }) => result))
  }

  test('all go back to the newest step that both have, and end with the same bits', async () => {
    const { state } = await undisturbed(2, 2, 6)
    let updates = 0
    const group = await run((kind) => kind === 'update' && ++updates === 7)
    await finished(group)
    expect(tableState(group)).toEqual(state)
    expect(kinds(group.servers[0]!.events, 'warning').map(({ error }) => error.code)).toContain('servers-scattered')
    const resumed = group.servers.map(({ events }) => kinds(events, 'resumed').map(({ step }) => step))
    expect(resumed[0]).toEqual(resumed[1])
    expect(resumed[0]!.length).toBe(1)
  })

  test('before anything is saved: all begin anew', async () => {
    const { state } = await undisturbed(2, 2, 6)
    const group = await run((kind) => kind === 'update')
    await finished(group)
    expect(tableState(group)).toEqual(state)
  })

  test('before it has the last step: workers stay until all have it', async () => {
    const { state, results } = await undisturbed(2, 2, 6)
    const store = new MemoryCheckpoints()
    const write = store.write.bind(store)
    let isLost = false
    store.write = async (content) => {
      if (content.step < 6 || isLost) return await write(content)
      isLost = true
      throw new Error('killed')
    }
    // The follower reports the failure, and is cut off before the leader has it.
    const group = await run((kind) => isLost && kind === 'warning', { stores: [new MemoryCheckpoints(), store] })
    await finished(group)
    expect(tableState(group)).toEqual(state)
    expect(kinds(group.servers[0]!.events, 'evaluation').at(-1)!.scores).toEqual(results[0]!.scores)
    expect(kinds(group.servers[0]!.events, 'warning').map(({ error }) => error.code)).toContain('servers-scattered')
    expect(store.steps).toContain(6)
  })

  test('after that: it is told of the end when it comes back, and releases its part', async () => {
    const { state } = await undisturbed(2, 2, 6)
    const group = await run((kind) => kind === 'finished', { limits: { lateWorkersMs: 60_000 } })
    const [leader, follower] = group.servers
    await leader!.result
    // It does not know that the workers know, and would wait for them.
    follower!.stop.abort()
    expect(tableState(group)).toEqual(state)
    expect(kinds(follower!.events, 'resumed').map(({ step }) => step)).toEqual([6])
    expect(await follower!.result).toMatchObject({ reason: 'complete', version: 6 })
    expect(kinds(leader!.events, 'peer-left').at(-1)).toEqual({
      kind: 'peer-left',
      peer: 'server1',
      reason: 'finished',
    })
  })
})
