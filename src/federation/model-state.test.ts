import { afterAll, describe, expect, test } from 'vitest'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { fromBfloat16, toBfloat16 } from '../models/bfloat16.ts'
import { mean } from './aggregators/mean.ts'
import { manifestOf } from './manifest.ts'
import { ModelState, type ModelStateOptions, type ModelUpdate } from './model-state.ts'
import { momentum } from './optimizers/momentum.ts'
import { sgd } from './optimizers/sgd.ts'
import { contentOf, modelOf as savedModelOf } from './saved-state.ts'
import { TensorPool, TensorSet } from './tensor-set.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

const manifest = manifestOf([
  { name: 'norm/mean', shape: [2], role: 'statistic' },
  { name: 'norm/scale', shape: [2], role: 'unregularised' },
  { name: 'a', shape: [1, 2], role: 'weight' },
  { name: 'b', shape: [], role: 'weight' },
])
const values = new Map([
  ['a', Float32Array.of(1, -2)],
  ['b', Float32Array.of(0.5)],
  ['norm/scale', Float32Array.of(3, 4)],
  ['norm/mean', Float32Array.of(10, 20)],
])

function modelOf(options: Partial<ModelStateOptions> = {}): ModelState {
  return new ModelState({ engine, manifest, optimizer: sgd(), aggregator: mean, weightDecay: 0, values, ...options })
}

/** Tensors in the manifest's order: a, b, scale, mean. */
function updateOf(worker: number, examples: number, ...tensors: number[][]): ModelUpdate {
  const set = TensorSet.allocate(engine, manifest)
  for (const [index, tensor] of tensors.entries()) set.tensors[index]!.set(tensor)
  return { worker, examples, values: set }
}

/** An engine that knows which tensors of its own are in use. */
function countingEngine() {
  const live = new Set<object>()
  const counting = {
    ...engine,
    tensor(...input: Parameters<typeof engine.tensor>) {
      const tensor = engine.tensor(...input)
      live.add(tensor)
      return { ...tensor, dispose: () => live.delete(tensor) }
    },
  }
  return { counting, live }
}

function parametersOf(model: ModelState): Record<string, number[]> {
  const { parameters, release } = model.snapshot()
  const read = Object.fromEntries([...parameters.named()].map(([name, { data }]) => [name, [...data]]))
  release()
  return read
}

test('values are where their names say', () => {
  expect(parametersOf(modelOf())).toEqual({ a: [1, -2], b: [0.5], 'norm/scale': [3, 4], 'norm/mean': [10, 20] })
})

test('the mean is over examples; statistics move by their mean difference, without rate or optimizer', async () => {
  const model = modelOf()
  await model.apply([updateOf(0, 3, [4, 8], [-4], [0, 4], [1, 2]), updateOf(1, 1, [8, 0], [4], [4, 4], [5, -2])], 0.5)
  // Weights 3/4 and 1/4: a 5, 6; b −2; scale 1, 4; mean 2, 1.
  expect(parametersOf(model)).toEqual({ a: [-1.5, -5], b: [1.5], 'norm/scale': [2.5, 2], 'norm/mean': [12, 21] })
  expect(model.version).toBe(1)
})

test('weight decay pulls weights only', async () => {
  const model = modelOf({ weightDecay: 0.25 })
  await model.apply([updateOf(0, 8, [0, 0], [1], [0, 0], [0, 0])], 0.5)
  expect(parametersOf(model)).toEqual({
    a: [1 - 0.5 * 0.25, -2 + 0.5 * 0.5],
    b: [0.5 - 0.5 * (1 + 0.125)],
    'norm/scale': [3, 4],
    'norm/mean': [10, 20],
  })
})

test('the same updates give the same bits in whatever order they came', async () => {
  const updates = [1e8, -1e8, 0.3, 7e-3].map((large, worker) =>
    updateOf(worker, worker + 3, [large / 3, 0.1], [large], [0.7, large], [0, 0]),
  )
  const results = []
  for (const order of [updates, updates.toReversed(), [updates[2]!, updates[0]!, updates[3]!, updates[1]!]]) {
    const model = modelOf()
    await model.apply(order, 0.1)
    results.push(parametersOf(model))
  }
  expect(results[1]).toEqual(results[0])
  expect(results[2]).toEqual(results[0])
})

test('as bfloat16: parameters are sent rounded, updates taken as they come, and the model kept whole', async () => {
  const third = 1 / 3
  const model = modelOf({ transfer: 'bfloat16', values: new Map(values).set('b', Float32Array.of(third)) })
  const sentOf = (): number[][] => {
    const { parameters, release } = model.toTrainWith()
    const read = parameters.tensors.map((tensor) => [
      ...(tensor instanceof Uint16Array ? fromBfloat16(tensor) : tensor),
    ])
    release()
    return read
  }
  const nearest = (value: number): number => fromBfloat16(toBfloat16(Float32Array.of(value)))[0]!
  expect(sentOf()).toEqual([[1, -2], [nearest(third)], [3, 4], [10, 20]])
  const set = new TensorPool(engine, manifest, 'bfloat16').take()
  const tensors = [[0.25, 0.5], [third], [1, 1], [third, 0]].map((tensor) => Float32Array.from(tensor))
  for (const [index, tensor] of tensors.entries()) {
    set.tensors[index]!.set(set.tensors[index] instanceof Uint16Array ? toBfloat16(tensor) : tensor)
  }
  await model.apply([{ worker: 0, examples: 1, values: set }], 0.5)
  const kept = Math.fround(Math.fround(third) - nearest(third) / 2)
  const moved = Math.fround(10 + Math.fround(third))
  expect(parametersOf(model)).toEqual({
    a: [0.875, -2.25],
    b: [kept],
    'norm/scale': [2.5, 3.5],
    'norm/mean': [moved, 20],
  })
  expect(sentOf()).toEqual([[0.875, -2.25], [nearest(kept)], [2.5, 3.5], [moved, 20]])
  expect(nearest(kept)).not.toBe(kept)
  await model.close()
})

test('as bfloat16: what is being sent outlives the model’s next version, and is freed after', async () => {
  const { counting, live } = countingEngine()
  const model = modelOf({ engine: counting, transfer: 'bfloat16' })
  const initial = live.size
  const sent = model.toTrainWith()
  await model.apply([updateOf(0, 1, [1, 1], [1], [1, 1], [1, 1])].map(asBfloat16), 1)
  expect(live.size).toBe(initial)
  expect([...fromBfloat16(sent.parameters.tensors[0] as Uint16Array)]).toEqual([1, -2])
  expect([...sent.parameters.tensors[3]!]).toEqual([10, 20])
  sent.release()
  expect(live.size).toBe(0)
  await model.close()
})

function asBfloat16(update: ModelUpdate): ModelUpdate {
  const set = new TensorPool(engine, manifest, 'bfloat16').take()
  for (const [index, tensor] of update.values.tensors.entries()) {
    set.tensors[index]!.set(set.tensors[index] instanceof Uint16Array ? toBfloat16(tensor as Float32Array) : tensor)
  }
  return { ...update, values: set }
}

test('a snapshot stays as it is while the model goes on, and memory is freed when nobody uses it', async () => {
  const { counting, live } = countingEngine()
  const model = modelOf({ engine: counting })
  const initial = live.size
  const snapshot = model.snapshot()
  await model.apply([updateOf(0, 1, [1, 1], [1], [1, 1], [1, 1])], 1)
  expect(snapshot.version).toBe(0)
  expect([...snapshot.parameters.tensors[0]!]).toEqual([1, -2])
  expect(live.size).toBe(initial)
  snapshot.release()
  expect(live.size).toBe(0)
})

describe('values that are not the model’s are refused', () => {
  test.each<[string, [string, Float32Array][], string]>([
    ['one missing', [...values].slice(1), 'tensor-missing'],
    ['one too many', [...values, ['c', Float32Array.of(1)]], 'tensor-unknown'],
    ['another size', [...values].map(([name]) => [name, Float32Array.of(1, 2)]), 'tensor-shape-mismatch'],
  ])('%s', (_, entries, code) => {
    expect(() => modelOf({ values: new Map(entries) })).toThrow(expect.objectContaining({ code }))
  })
})

test('a saved model goes on as if it had never stopped', async () => {
  const options = { optimizer: momentum({ momentum: 0.9 }), weightDecay: 0.1 }
  const update = () => [updateOf(0, 2, [0.3, 0.7], [0.1], [1, 2], [3, 4])]
  const model = modelOf(options)
  await model.apply(update(), 0.1)
  const snapshot = model.snapshot()
  const none = { durableStep: 0, planDigest: undefined, prepared: undefined, auditHead: undefined }
  const progress = { version: 1, examples: 2, seconds: 3, positions: [1], workers: [], ...none }
  const content = contentOf({ snapshot, capture: model.captureRows(), since: undefined }, 1, progress)
  const resumed = modelOf({ ...options, ...savedModelOf(content, 1) })
  expect(resumed.version).toBe(1)
  await model.apply(update(), 0.05)
  await resumed.apply(update(), 0.05)
  expect(parametersOf(resumed)).toEqual(parametersOf(model))
})
