/**
 * Expected values: TensorFlow 2.21 on the CPU: keras.optimizers.Adagrad (Keras 3.15) with tf.IndexedSlices, and
 * tf.raw_ops.ResourceSparseApplyMomentum, three steps from `start`.
 */
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { engineDirectory, requires } from '../../test/requirements.ts'
import type { Engine } from '../engine/engine.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { createTensorflowEngine } from '../engine/tensorflow.ts'
import { RandomStream } from '../models/philox.ts'
import { mean } from './aggregators/mean.ts'
import { type Manifest, manifestOf } from './manifest.ts'
import { ModelState } from './model-state.ts'
import { adagrad } from './optimizers/adagrad.ts'
import { adam } from './optimizers/adam.ts'
import { momentum } from './optimizers/momentum.ts'
import type { Optimizer } from './optimizers/optimizer.ts'
import { sgd } from './optimizers/sgd.ts'
import { yogi } from './optimizers/yogi.ts'
import { manifestOfServer, place, rowsByServer } from './placement.ts'
import { type RowGradients, unionOf } from './row-updates.ts'
import { TensorSet } from './tensor-set.ts'

const rows = 300
const width = 5
const spec = { name: 'embedding', width, rows, initial: { scale: 0.1 } }
const everyRow = Uint32Array.from({ length: rows }, (_, id) => id)

interface Update {
  readonly examples: number
  readonly rows: RowGradients
}

function stateOf(engine: Engine, optimizer: Optimizer, manifest: Manifest = [], values = new Map()): ModelState {
  const tables = { specs: [spec], seed: 3, maximumRows: rows }
  // Weight decay is nothing to rows.
  return new ModelState({ engine, manifest, optimizer, aggregator: mean, weightDecay: 0.5, values, tables })
}

/** Updates in the order of workers. */
function apply(engine: Engine, state: ModelState, updates: readonly Update[], rate: number): Promise<void> {
  const nothing = TensorSet.allocate(engine, [])
  return state.apply(
    updates.map(({ examples, rows }, worker) => ({
      worker,
      examples,
      values: nothing,
      rows: new Map([[spec.name, rows]]),
    })),
    rate,
  )
}

function rowsOf(state: ModelState, ids: Uint32Array = everyRow): Float32Array {
  const out = new Float32Array(ids.length * width)
  state.tables.get(spec.name)!.gather(ids, out, { create: false })
  return out
}

/** Each row by chance, with gradients of quite different sizes. */
function updateOf(random: RandomStream, chance: number, examples = 1): Update {
  const ids = everyRow.filter(() => random.uniform() < chance)
  const gradients = Float32Array.from({ length: ids.length * width }, () => random.normal() * 10 ** random.below(4))
  return { examples, rows: { ids, gradients } }
}

/** The same rows as one dense tensor without decay. */
class DenseTwin {
  readonly #engine: Engine
  readonly #state: ModelState
  readonly #manifest = manifestOf([{ name: 'w', shape: [rows, width], role: 'unregularised' }])

  constructor(engine: Engine, optimizer: Optimizer, initial: Float32Array) {
    const values = new Map([['w', initial]])
    this.#engine = engine
    this.#state = new ModelState({
      engine,
      manifest: this.#manifest,
      optimizer,
      aggregator: mean,
      weightDecay: 0.5,
      values,
    })
  }

  async apply(updates: readonly Update[], rate: number): Promise<void> {
    const dense = updates.map(({ examples, rows: { ids, gradients } }, worker) => {
      const set = TensorSet.allocate(this.#engine, this.#manifest)
      for (const [row, id] of ids.entries()) {
        set.tensors[0]!.set(gradients.subarray(row * width, (row + 1) * width), id * width)
      }
      return { worker, examples, values: set }
    })
    await this.#state.apply(dense, rate)
  }

  values(): Float32Array {
    const snapshot = this.#state.snapshot()
    const values = snapshot.parameters.tensors[0]!.slice()
    snapshot.release()
    return values
  }
}

const optimizers: [string, Optimizer, 'exact' | 'lazy'][] = [
  ['sgd', sgd(), 'exact'],
  ['adagrad', adagrad({ initialAccumulator: 0.01 }), 'exact'],
  ['adagrad from 0', adagrad({ initialAccumulator: 0 }), 'exact'],
  ['momentum', momentum({ momentum: 0.9 }), 'lazy'],
  ['adam', adam(), 'lazy'],
  ['yogi', yogi(), 'lazy'],
]

function updatesRows(open: () => Engine): void {
  const engine = open()
  afterAll(() => engine.close())

  test.each(optimizers)('%s over all rows gives the bits of a dense tensor', async (_, optimizer) => {
    const state = stateOf(engine, optimizer)
    const twin = new DenseTwin(engine, optimizer, rowsOf(state))
    const random = new RandomStream(5, 'all rows')
    for (const rate of [0.1, 0.07, 0.02]) {
      const updates = [updateOf(random, 1)]
      await apply(engine, state, updates, rate)
      await twin.apply(updates, rate)
    }
    expect(rowsOf(state)).toEqual(twin.values())
  })

  test.each(optimizers.filter(([, , kind]) => kind === 'exact'))(
    '%s over some rows of several workers gives the bits of a dense tensor with zeros elsewhere',
    async (_, optimizer) => {
      const state = stateOf(engine, optimizer)
      const twin = new DenseTwin(engine, optimizer, rowsOf(state))
      const random = new RandomStream(6, 'some rows')
      for (const rate of [0.1, 0.07, 0.02, 0.5]) {
        const updates = [128, 1, 77].map((examples, worker) => updateOf(random, 0.1 + 0.3 * worker, examples))
        await apply(engine, state, updates, rate)
        await twin.apply(updates, rate)
      }
      expect(rowsOf(state)).toEqual(twin.values())
    },
  )

  test.each(optimizers.filter(([, , kind]) => kind === 'lazy'))(
    '%s leaves rows alone that no update touches, with their state',
    async (_, optimizer) => {
      const state = stateOf(engine, optimizer)
      const random = new RandomStream(7, 'lazy')
      await apply(engine, state, [updateOf(random, 1)], 0.1)
      const before = rowsOf(state)
      const odd = everyRow.filter((id) => id % 2 === 1)
      const gradients = new Float32Array(odd.length * width).fill(1)
      state.captureRows().commit()
      await apply(engine, state, [{ examples: 1, rows: { ids: odd, gradients } }], 0.1)
      const after = rowsOf(state)
      for (const id of everyRow) {
        const row = (values: Float32Array) => [...values.subarray(id * width, (id + 1) * width)]
        if (id % 2 === 0) expect(row(after)).toEqual(row(before))
        else expect(row(after)).not.toEqual(row(before))
      }
      const changed = [...state.captureRows().blocks()].flatMap(({ ids }) => [...ids])
      expect(changed.sort((a, b) => a - b)).toEqual([...odd])
    },
  )

  test('follows TensorFlow’s sparse optimizers', async () => {
    const start = [0.5, -1.25, 2.0, 0.03, -0.75, 0.6]
    const steps: [number[], number[], number][] = [
      [[0, 2], [0.1, -0.7, 3.0, 0.25], 0.1],
      [[2], [-0.4, 0.2], 0.07],
      [[0, 1], [0.05, -1.5, -2.5, 0.3], 0.02],
    ]
    const references: [Optimizer, number[]][] = [
      [
        adagrad(),
        [
          0.46686744689941406, -1.1410659551620483, 2.0198419094085693, 0.01623505912721157, -0.8402476906776428,
          0.5068715810775757,
        ],
      ],
      [
        momentum({ momentum: 0.9 }),
        [
          0.4872000217437744, -1.1373999118804932, 2.049999952316284, 0.024000000208616257, -1.2109999656677246,
          0.5452500581741333,
        ],
      ],
    ]
    for (const [optimizer, expected] of references) {
      const narrow = { name: 'e', width: 2, rows: 3, initial: { scale: 1 } }
      const state = new ModelState({
        engine,
        manifest: [],
        optimizer,
        aggregator: mean,
        weightDecay: 0,
        values: new Map(),
        tables: { specs: [narrow], seed: 1, maximumRows: 3 },
      })
      const slots = Object.entries(optimizer.slots)
      const ids = Uint32Array.of(0, 1, 2)
      const values = [...ids].flatMap((id) => [
        ...start.slice(2 * id, 2 * id + 2),
        ...slots.flatMap(([, initial]) => [initial, initial]),
      ])
      state.loadRows({
        table: 'e',
        width: 2,
        slots: slots.map(([slot]) => slot),
        ids,
        values: Float32Array.from(values),
      })
      for (const [touched, gradients, rate] of steps) {
        const rows = new Map([['e', { ids: Uint32Array.from(touched), gradients: Float32Array.from(gradients) }]])
        await state.apply([{ worker: 0, examples: 8, values: TensorSet.allocate(engine, []), rows }], rate)
      }
      const out = new Float32Array(6)
      state.tables.get('e')!.gather(ids, out, { create: false })
      for (const [index, value] of expected.entries()) expect(out[index]).toBeCloseTo(value, 6)
    }
  })

  test('on one server and on three, the same updates give the same bits, rows and tensors', async () => {
    const manifest = manifestOf(
      [37, 5, 130, 64, 1].map((size, index) => ({ name: `w${index}`, shape: [size], role: 'weight' as const })),
    )
    const random = new RandomStream(9, 'placement')
    const values = new Map(
      manifest.map(({ name, elements }) => [name, Float32Array.from({ length: elements }, () => random.normal())]),
    )
    const optimizer = adagrad({ initialAccumulator: 0 })
    const placements = [1, 3].map((servers) => place(manifest, [spec], servers))
    const jobs = placements.map((placement) => ({
      placement,
      states: Array.from({ length: placement.servers }, (_, server) => {
        const part = manifestOfServer(manifest, placement, server)
        return stateOf(engine, optimizer, part, new Map(part.map(({ name }) => [name, values.get(name)!])))
      }),
    }))
    for (let step = 0; step < 5; step++) {
      const updates = [11, 128].map((examples) => ({
        ...updateOf(random, 0.2, examples),
        tensors: new Map(
          manifest.map(({ name, elements }) => [name, Float32Array.from({ length: elements }, () => random.normal())]),
        ),
      }))
      for (const { placement, states } of jobs) {
        for (const [server, state] of states.entries()) {
          const parts = updates.map(({ examples, rows, tensors }, worker) => {
            const set = TensorSet.allocate(engine, state.manifest)
            for (const [index, { name }] of state.manifest.entries()) set.tensors[index]!.set(tensors.get(name)!)
            const { ids, positions } = rowsByServer(rows.ids, placement.servers)[server]!
            const gradients = new Float32Array(ids.length * width)
            for (const [row, position] of positions.entries()) {
              gradients.set(rows.gradients.subarray(position * width, (position + 1) * width), row * width)
            }
            return { worker, examples, values: set, rows: new Map([[spec.name, { ids, gradients }]]) }
          })
          await state.apply(parts, 0.1)
        }
      }
    }
    const [one, three] = jobs.map(({ placement, states }) => {
      const out = new Float32Array(rows * width)
      for (const [server, { ids, positions }] of rowsByServer(everyRow, placement.servers).entries()) {
        const part = rowsOf(states[server]!, ids)
        for (const [row, position] of positions.entries()) {
          out.set(part.subarray(row * width, (row + 1) * width), position * width)
        }
      }
      const tensors = states.flatMap((state) => [...state.snapshot().parameters.named()])
      return { out, tensors: Object.fromEntries(tensors.map(([name, { data }]) => [name, [...data]])) }
    })
    expect(three).toEqual(one)
  })
}

describe('in JavaScript', () => updatesRows(createJavascriptEngine))

requires('tensorflow-library').describe('in TensorFlow', () => {
  updatesRows(() => createTensorflowEngine({ directory: engineDirectory, threads: 1 }))
})

describe('with several workers', () => {
  const engine = createJavascriptEngine()

  test('the order in which updates came is nothing to the result', async () => {
    const random = new RandomStream(10, 'order')
    const updates = [5, 60, 128].map((examples) => updateOf(random, 0.5, examples))
    const nothing = TensorSet.allocate(engine, [])
    const results = []
    for (const order of [
      [0, 1, 2],
      [2, 0, 1],
    ]) {
      const state = stateOf(engine, adagrad())
      await state.apply(
        order.map((worker) => ({
          worker,
          examples: updates[worker]!.examples,
          values: nothing,
          rows: new Map([[spec.name, updates[worker]!.rows]]),
        })),
        0.1,
      )
      results.push(rowsOf(state))
    }
    expect(results[1]).toEqual(results[0])
  })

  test('places known from the pull give the same', async () => {
    const [plain, placed] = [stateOf(engine, adagrad()), stateOf(engine, adagrad())]
    const random = new RandomStream(11, 'places')
    for (let step = 0; step < 3; step++) {
      const update = updateOf(random, 0.3)
      const { ids } = update.rows
      const out = new Float32Array(ids.length * width)
      const places = placed.tables.get(spec.name)!.gather(ids, out, { create: true })
      await apply(engine, placed, [{ ...update, rows: { ...update.rows, places } }], 0.1)
      await apply(engine, plain, [update], 0.1)
    }
    expect(rowsOf(placed)).toEqual(rowsOf(plain))
  })

  test('a worker that touched no row counts in the mean', async () => {
    const state = stateOf(engine, sgd())
    const before = rowsOf(state)[0]!
    const one = { ids: Uint32Array.of(0), gradients: new Float32Array(width).fill(4) }
    const none = { ids: new Uint32Array(), gradients: new Float32Array() }
    await apply(
      engine,
      state,
      [
        { examples: 1, rows: one },
        { examples: 3, rows: none },
      ],
      0.5,
    )
    expect(rowsOf(state)[0]).toBe(Math.fround(before - 0.5))
  })

  test('a push that would outgrow the table changes nothing', async () => {
    const tables = { specs: [spec], seed: 3, maximumRows: 2 }
    const state = new ModelState({
      engine,
      manifest: [],
      optimizer: sgd(),
      aggregator: mean,
      weightDecay: 0,
      values: new Map(),
      tables,
    })
    const before = rowsOf(state)
    const update = {
      examples: 1,
      rows: { ids: Uint32Array.of(1, 2, 3), gradients: new Float32Array(3 * width).fill(1) },
    }
    await expect(apply(engine, state, [update], 1)).rejects.toThrow(expect.objectContaining({ code: 'table-full' }))
    expect(state.version).toBe(0)
    expect(rowsOf(state)).toEqual(before)
  })

  test('rows of an unknown table are not loaded', () => {
    const block = { table: 'users', width, slots: [], ids: new Uint32Array(), values: new Float32Array() }
    expect(() => stateOf(engine, sgd()).loadRows(block)).toThrow(expect.objectContaining({ code: 'table-mismatch' }))
  })
})

test('the union is ascending, each id once', () => {
  fc.assert(
    fc.property(fc.array(fc.uniqueArray(fc.nat(40))), (lists) => {
      const ascending = lists.map((list) => Uint32Array.from(list).sort())
      const expected = [...new Set(lists.flat())].sort((a, b) => a - b)
      expect([...unionOf(ascending)]).toEqual(expected)
    }),
  )
})
