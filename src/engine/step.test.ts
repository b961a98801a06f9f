// SPDX-License-Identifier: Apache-2.0
/** Training and evaluation of a model, the same on both engines, and without a trace in the model itself. */
import * as tf from '@tensorflow/tfjs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../test/requirements.ts'
import { fromBfloat16, toBfloat16 } from '../models/bfloat16.ts'
import type { Model, ModelVariable } from '../models/model.ts'
import type { Engine, HostTensor } from './engine.ts'
import { createJavascriptEngine } from './javascript.ts'
import { engineDirectory } from './locate.ts'
import { compileEvaluation, compileTraining } from './step.ts'
import { createTensorflowEngine } from './tensorflow.ts'

const batchSize = 4

/** A linear model by hand: loss = mean (w x + noise − y)², a statistic that counts steps, a weight that nothing needs. */
function linear(): Model {
  const make = (name: string, role: ModelVariable['role'], values: number[]): ModelVariable => {
    const tensor = tf.tidy(() => tf.variable(tf.tensor1d(values), role !== 'statistic'))
    return { name, shape: [values.length], role, tensor }
  }
  const w = make('w', 'weight', [-1])
  const idle = make('idle', 'unregularised', [5, 6])
  const steps = make('steps', 'statistic', [100])
  return {
    name: 'linear',
    variables: [w, idle, steps],
    tables: [],
    batch: { x: { shape: [], dtype: 'float32' }, y: { shape: [], dtype: 'uint8' } },
    train({ x, y }, random) {
      const error = tf.sub(tf.add(tf.mul(x!, w.tensor), random.uniform([batchSize], -1, 1)), y!)
      steps.tensor.assign(tf.add(steps.tensor, 1))
      return { loss: tf.mean(tf.square(error)), metrics: { largest: tf.max(tf.abs(error)) } }
    },
    evaluate: ({ x, y }) => ({
      lossSum: tf.sum(tf.square(tf.sub(tf.mul(x!, w.tensor), y!))),
      steps: tf.sum(steps.tensor),
    }),
    initialValues: () => new Map(),
  }
}

/** The squared length of the sum of each example's two rows. */
const embedding: Model = {
  name: 'embedding',
  variables: [],
  tables: [{ name: 'words', width: 2, rows: 1000, field: 'ids', initial: { scale: 1 } }],
  batch: { ids: { shape: [2], dtype: 'int32' } },
  train: ({ ids, 'rows/words': rows }) => {
    const lengths = tf.sum(tf.square(tf.sum(tf.gather(rows!, ids!), 1)), 1)
    return { loss: tf.mean(lengths), metrics: {} }
  },
  evaluate: ({ ids, 'rows/words': rows }) => ({
    total: tf.sum(tf.gather(rows!, ids!)),
    uses: tf.unsortedSegmentSum(tf.ones([4]), tf.reshape(ids!, [4]), 4) as tf.Tensor1D,
  }),
  initialValues: () => new Map(),
}

const float32 = (...values: number[]): HostTensor => ({
  shape: [values.length],
  dtype: 'float32',
  data: Float32Array.from(values),
})
const parameters = new Map([
  ['w', float32(2)],
  ['idle', float32(7, 8)],
  ['steps', float32(41)],
])
const x = [1, -2, 3, 0.5]
const y = [3, 200, 0, 1]
const batch = { x: float32(...x), y: { shape: [4], dtype: 'uint8', data: Uint8Array.from(y) } } as const

contract('javascript', createJavascriptEngine)
requires('tensorflow-library').describe('with the library', () => {
  const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)
  contract('tensorflow', () => createTensorflowEngine({ directory, threads: 2 }))
})

function contract(kind: string, create: () => Engine): void {
  const engine = create()
  const model = linear()
  const own = () => model.variables.map(({ tensor }) => [...tensor.dataSync()])
  const before = own()
  let tensors: number
  beforeAll(() => {
    tensors = tf.memory().numTensors
  })
  afterAll(async () => {
    await engine.close()
    expect(own()).toEqual(before)
    expect(tf.memory().numTensors).toBe(tensors)
  })

  test(`${kind}: loss, metrics, gradients and statistics of the parameters that are given`, async () => {
    const step = compileTraining(engine, model, batchSize)
    const result = await step.run(parameters, batch, [1, 2])
    const { loss, metrics, gradients, statistics } = result
    expect([...gradients.keys()]).toEqual(['w', 'idle'])
    expect([...gradients.get('idle')!.data]).toEqual([0, 0])
    expect([...statistics].map(([name, { data }]) => [name, ...data])).toEqual([['steps', 42]])
    // The noise follows from the second step with w = 0 and y = 0: its errors are the noise.
    const noiseless = { x: float32(0, 0, 0, 0), y: { ...batch.y, data: new Uint8Array(4) } }
    const quiet = await step.run(parameters, noiseless, [1, 2])
    const other = await step.run(parameters, noiseless, [1, 3])
    expect(quiet.loss).toBeGreaterThan(0)
    expect(quiet.loss).toBeLessThan(1)
    expect(other.loss).not.toBe(quiet.loss)
    expect(metrics.largest).toBeGreaterThan(203)
    expect(metrics.largest).toBeLessThan(205)
    expect(Math.sqrt(loss)).toBeGreaterThan(204 / 2 - 1)
    const again = await step.run(parameters, batch, [1, 2])
    expect(again.loss).toBe(loss)
    expect(again.gradients.get('w')!.data).toEqual(gradients.get('w')!.data)
    for (const each of [result, quiet, other, again]) each.dispose()
    expect(own()).toEqual(before)
    await step.close()
  })

  test(`${kind}: the gradient is that of finite differences`, async () => {
    const step = compileTraining(engine, model, batchSize)
    const at = async (w: number) => {
      const result = await step.run(new Map(parameters).set('w', float32(w)), batch, [5, 5])
      const gradient = result.gradients.get('w')!.data[0]!
      result.dispose()
      return { loss: result.loss, gradient }
    }
    const [below, here, above] = [await at(1.5), await at(2), await at(2.5)]
    expect(above.loss - below.loss).toBeCloseTo(here.gradient, 1)
    await step.close()
  })

  test(`${kind}: evaluation gives sums and changes nothing`, async () => {
    const step = compileEvaluation(engine, model, batchSize)
    const sums = await step.run(parameters, batch)
    expect(sums).toEqual({ lossSum: 1 + 204 ** 2 + 36, steps: 41 })
    expect(own()).toEqual(before)
    await step.close()
  })

  test(`${kind}: rows are looked up, their gradients summed over repeated uses, and histograms come out`, async () => {
    const training = compileTraining(engine, embedding, 2)
    const rows = { shape: [4, 2], dtype: 'float32', data: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) } as const
    const ids = { shape: [2, 2], dtype: 'int32', data: Int32Array.of(2, 0, 2, 1) } as const
    const result = await training.run(new Map(), { ids, 'rows/words': rows }, [0, 0])
    // Loss: the mean over two examples of the squared sum over an example's rows, 36 + 64 and 64 + 100.
    expect(result.loss).toBe(132)
    expect([...result.gradients]).toEqual([])
    const gradient = result.rowGradients.get('words')!
    expect(gradient.shape).toEqual([4, 2])
    expect([...gradient.data]).toEqual([6, 8, 8, 10, 14, 18, 0, 0])
    result.dispose()
    const evaluation = compileEvaluation(engine, embedding, 2)
    expect(await evaluation.run(new Map(), { ids, 'rows/words': rows })).toEqual({
      total: 32,
      uses: Float64Array.of(1, 1, 2, 0),
    })
    await expect(training.run(new Map(), { ids }, [0, 0])).rejects.toMatchObject({ code: 'program-input' })
    await Promise.all([training.close(), evaluation.close()])
  })

  test(`${kind}: with bfloat16 it is the step of the rounded values, and gradients are rounded`, async () => {
    const [whole, halved] = [
      compileTraining(engine, model, batchSize),
      compileTraining(engine, model, batchSize, 'bfloat16'),
    ]
    const sent = new Map<string, HostTensor>(parameters)
    const seen = new Map<string, HostTensor>(parameters)
    for (const [name, value] of [
      ['w', 2.0078],
      ['idle', -7.03],
    ] as const) {
      const data = toBfloat16(Float32Array.of(...(name === 'w' ? [value] : [value, 1 / 3])))
      const { shape } = parameters.get(name)!
      sent.set(name, { shape, dtype: 'bfloat16', data })
      seen.set(name, { shape, dtype: 'float32', data: fromBfloat16(data) })
    }
    const [expected, result] = [await whole.run(seen, batch, [1, 2]), await halved.run(sent, batch, [1, 2])]
    expect(result.loss).toBe(expected.loss)
    expect(result.statistics.get('steps')).toMatchObject({ dtype: 'float32', data: Float32Array.of(42) })
    for (const [name, { data }] of expected.gradients) {
      expect(result.gradients.get(name)!.data).toEqual(toBfloat16(data as Float32Array))
    }
    expect(result.gradients.get('w')!.data[0]).not.toBe(0)
    await expect(halved.run(parameters, batch, [1, 2])).rejects.toMatchObject({ code: 'program-input' })
    for (const each of [expected, result]) each.dispose()
    await Promise.all([whole.close(), halved.close()])
  })

  test(`${kind}: with bfloat16 rows come and their gradients go so`, async () => {
    const step = compileTraining(engine, embedding, 2, 'bfloat16')
    const data = toBfloat16(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8))
    const ids = { shape: [2, 2], dtype: 'int32', data: Int32Array.of(2, 0, 2, 1) } as const
    const result = await step.run(new Map(), { ids, 'rows/words': { shape: [4, 2], dtype: 'bfloat16', data } }, [0, 0])
    expect(result.loss).toBe(132)
    const gradient = result.rowGradients.get('words')!
    expect(gradient).toMatchObject({ shape: [4, 2], dtype: 'bfloat16' })
    expect([...fromBfloat16(gradient.data as Uint16Array)]).toEqual([6, 8, 8, 10, 14, 18, 0, 0])
    result.dispose()
    await step.close()
  })

  test(`${kind}: a parameter of another shape, one too many, one too few`, async () => {
    const step = compileTraining(engine, model, batchSize)
    const wrong: Map<string, HostTensor>[] = [
      new Map(parameters).set('w', float32(1, 2)),
      new Map(parameters).set('v', float32(1)),
      new Map([...parameters].slice(1)),
    ]
    for (const given of wrong)
      await expect(step.run(given, batch, [0, 0])).rejects.toMatchObject({ code: 'program-input' })
    await step.close()
  })

  test(`${kind}: a model that throws gets its own values back`, async () => {
    const broken: Model = {
      ...model,
      train(batch, random) {
        model.train(batch, random)
        throw new Error('half way')
      },
    }
    const failing = async () => {
      const step = compileTraining(engine, broken, batchSize)
      await step.run(parameters, batch, [0, 0])
    }
    await expect(failing()).rejects.toThrow('half way')
    expect(own()).toEqual(before)
    expect(tf.memory().numTensors).toBe(tensors)
  })
}
