import * as tf from '@tensorflow/tfjs'
import { describe, expect, test } from 'vitest'
import { classification } from './classification.ts'
import { fromLayersModel, type Objective } from './layers-model.ts'
import type { Model, Random } from './model.ts'

/** Mean of the outputs: a loss that shows what the network gave. */
const meanOutput: Objective = {
  train: (output) => ({ loss: tf.mean(output), metrics: {} }),
  evaluate: (output) => ({ sum: tf.sum(output) }),
}

function modelOf(layers: tf.layers.Layer[], objective: Objective = meanOutput): Model {
  const batch = { x: { shape: [], dtype: 'float32' }, labels: { shape: [], dtype: 'int32' } } as const
  return fromLayersModel(tf.sequential({ layers }), { name: 'test', batch, objective })
}

/** Halves, for uniform draws, alternate below and above a rate of one half. */
const alternating: Random = {
  uniform: (shape) => {
    const size = shape.reduce((product, extent) => product * extent, 1)
    return tf.tensor(
      Float32Array.from({ length: size }, (_, index) => (index % 2 ? 0.9 : 0.1)),
      shape,
    )
  },
  normal: (shape, mean = 0, deviation = 1) => tf.fill(shape, mean + deviation),
}

/** Runs the one-input model and gives the network's outputs. */
function outputs(layers: tf.layers.Layer[], x: tf.Tensor, random?: Random): number[] {
  const network = tf.sequential({ layers })
  let seen: tf.Tensor | undefined
  const see = (output: tf.Tensor) => {
    seen = output
    return tf.mean<tf.Scalar>(output)
  }
  const model = fromLayersModel(network, {
    name: 'test',
    batch: {},
    inputs: (batch) => batch.x!,
    objective: {
      train: (output) => ({ loss: see(output), metrics: {} }),
      evaluate: (output) => ({ loss: see(output) }),
    },
  })
  if (random) model.train({ x }, random)
  else model.evaluate({ x })
  return [...seen!.dataSync()]
}

describe('variables', () => {
  test('bear the same names however many models were built before', () => {
    const build = () =>
      modelOf([
        tf.layers.dense({ units: 4, inputShape: [3], activation: 'relu' }),
        tf.layers.batchNormalization(),
        tf.layers.dense({ units: 2, name: 'last' }),
        tf.layers.dense({ units: 2 }),
      ]).variables.map(({ name, role, shape }) => [name, role, shape])
    build()
    expect(build()).toEqual([
      ['dense_1/kernel', 'weight', [3, 4]],
      ['dense_1/bias', 'unregularised', [4]],
      ['batch_normalization_1/gamma', 'unregularised', [4]],
      ['batch_normalization_1/beta', 'unregularised', [4]],
      ['batch_normalization_1/moving_mean', 'statistic', [4]],
      ['batch_normalization_1/moving_variance', 'statistic', [4]],
      ['last/kernel', 'weight', [4, 2]],
      ['last/bias', 'unregularised', [2]],
      ['dense_2/kernel', 'weight', [2, 2]],
      ['dense_2/bias', 'unregularised', [2]],
    ])
  })

  test('of nested models, recurrent and wrapped layers too', () => {
    const build = () => {
      const inner = tf.sequential({ layers: [tf.layers.dense({ units: 3, inputShape: [4, 2] })] })
      const wrapped = tf.layers.bidirectional({ layer: tf.layers.lstm({ units: 2 }) as tf.RNN, mergeMode: 'concat' })
      return modelOf([inner, wrapped])
    }
    build()
    const model = build()
    expect(model.variables.map(({ name }) => name)).toEqual([
      'dense_1/kernel',
      'dense_1/bias',
      ...['forward', 'backward'].flatMap((direction) =>
        ['kernel', 'recurrent_kernel', 'bias'].map((weight) => `bidirectional_1/${direction}_lstm/${weight}`),
      ),
    ])
    // Orthogonal rows of the recurrent kernel [2, 8]; the layer's own initializer was found.
    const recurrent = model.initialValues(1).get('bidirectional_1/forward_lstm/recurrent_kernel')!
    expect(recurrent.slice(0, 8).reduce((sum, value) => sum + value * value, 0)).toBeCloseTo(1, 5)
  })

  test('that are frozen are not trained', () => {
    const frozen = tf.layers.dense({ units: 2, inputShape: [2], trainable: false })
    expect(modelOf([frozen]).variables.map(({ role }) => role)).toEqual(['statistic', 'statistic'])
  })

  test('keep the values of a pre-trained network when asked to', () => {
    const layer = tf.layers.dense({ units: 1, inputShape: [2], name: 'd' })
    const network = tf.sequential({ layers: [layer] })
    layer.setWeights([tf.tensor2d([[3], [4]]), tf.tensor1d([5])])
    const options = { name: 'test', batch: {}, objective: meanOutput }
    const kept = fromLayersModel(network, { ...options, initial: 'as-built' }).initialValues(7)
    expect(Object.fromEntries(kept)).toEqual({ 'd/kernel': Float32Array.of(3, 4), 'd/bias': Float32Array.of(5) })
    const drawn = fromLayersModel(network, options).initialValues(7)
    expect(drawn.get('d/kernel')).not.toEqual(Float32Array.of(3, 4))
  })
})

describe('batch normalisation', () => {
  const x = tf.tensor2d([
    [1, 10],
    [3, 10],
    [5, 40],
    [7, 20],
  ])

  test('normalises by the batch in training, updates the moving averages, and uses them in evaluation', () => {
    const layer = tf.layers.batchNormalization({ inputShape: [2], momentum: 0.75, epsilon: 0.5, name: 'bn' })
    const network = tf.sequential({ layers: [layer] })
    const model = fromLayersModel(network, {
      name: 'test',
      batch: {},
      inputs: (batch) => batch.x!,
      objective: {
        train: (output) => ({ loss: tf.sum(tf.mul(output, x)), metrics: {} }),
        evaluate: (output) => ({ sum: tf.sum(tf.mul(output, x)) }),
      },
    })
    // Population statistics by hand: means 4 and 20, variances 5 and 150.
    const expected = (means: number[], variances: number[]) =>
      (x.arraySync() as number[][])
        .flatMap((row) => row.map((value, c) => (value * (value - means[c]!)) / Math.sqrt(variances[c]! + 0.5)))
        .reduce((sum, value) => sum + value, 0)
    expect(model.train({ x }, alternating).loss.dataSync()[0]).toBeCloseTo(expected([4, 20], [5, 150]), 3)
    const [mean, variance] = [1, 5]
    const moving = model.variables
      .filter(({ role }) => role === 'statistic')
      .map(({ tensor }) => [...tensor.dataSync()])
    expect(moving[0]).toEqual([mean, variance])
    expect(moving[1]![0]).toBeCloseTo(0.75 + 0.25 * 5, 5)
    expect(moving[1]![1]).toBeCloseTo(0.75 + 0.25 * 150, 5)
    expect(model.evaluate({ x }).sum!.dataSync()[0]).toBeCloseTo(expected(moving[0]!, moving[1]!), 3)
    // Evaluation leaves them alone.
    expect([...model.variables.at(-1)!.tensor.dataSync()]).toEqual(moving[1])
  })

  test.each([{ scale: false }, { center: false }, { scale: false, center: false }])(
    'without scale or offset: %o',
    (options) => {
      const got = outputs([tf.layers.batchNormalization({ inputShape: [2], epsilon: 0.5, ...options })], x, alternating)
      expect(got[0]).toBeCloseTo(-3 / Math.sqrt(5.5), 5)
      expect(got[5]).toBeCloseTo(20 / Math.sqrt(150.5), 5)
    },
  )

  test('over another axis is refused, over the last by its number is not', () => {
    const layer = (axis: number) => tf.layers.batchNormalization({ inputShape: [2, 2, 2], axis })
    expect(() => modelOf([layer(1)])).toThrow(expect.objectContaining({ code: 'layer-unsupported' }))
    expect(modelOf([layer(3)]).variables).toHaveLength(4)
  })
})

describe('randomness comes from the step', () => {
  const x = tf.ones([2, 4])

  test('dropout', () => {
    const dropout = () => [tf.layers.dropout({ rate: 0.5, inputShape: [4] })]
    expect(outputs(dropout(), x, alternating)).toEqual([0, 2, 0, 2, 0, 2, 0, 2])
    expect(outputs(dropout(), x)).toEqual([1, 1, 1, 1, 1, 1, 1, 1])
    const rows = [tf.layers.dropout({ rate: 0.5, inputShape: [4], noiseShape: [2, 1] })]
    expect(outputs(rows, x, alternating)).toEqual([0, 0, 0, 0, 2, 2, 2, 2])
    // Kept when the draw is not below the rate: 0.1 and 0.9 both are above 0.05.
    const kept = outputs([tf.layers.dropout({ rate: 0.05, inputShape: [4] })], x, alternating)
    for (const value of kept) expect(value).toBeCloseTo(1 / 0.95, 6)
    expect(outputs([tf.layers.dropout({ rate: 1, inputShape: [4] })], x, alternating)).toEqual(new Array(8).fill(0))
    expect(outputs([tf.layers.dropout({ rate: 0, inputShape: [4] })], x, alternating)).toEqual(new Array(8).fill(1))
  })

  test('spatial dropout drops whole channels', () => {
    const got = outputs(
      [tf.layers.spatialDropout1d({ rate: 0.5, inputShape: [3, 2] })],
      tf.ones([1, 3, 2]),
      alternating,
    )
    expect(got).toEqual([0, 2, 0, 2, 0, 2])
  })

  test('gaussian noise and gaussian dropout', () => {
    const noise = () => [tf.layers.gaussianNoise({ stddev: 3, inputShape: [4] })]
    expect(outputs(noise(), x, alternating)).toEqual(new Array(8).fill(4))
    expect(outputs(noise(), x)).toEqual(new Array(8).fill(1))
    const dropout = outputs([tf.layers.gaussianDropout({ rate: 0.2, inputShape: [4] })], x, alternating)
    for (const value of dropout) expect(value).toBeCloseTo(1.5, 6)
  })

  test('layers that draw where the step cannot reach are refused', () => {
    for (const layer of [
      tf.layers.alphaDropout({ rate: 0.5, inputShape: [3, 2] }),
      tf.layers.lstm({ units: 2, inputShape: [3, 2], dropout: 0.1 }),
      tf.layers.bidirectional({
        layer: tf.layers.gru({ units: 2, recurrentDropout: 0.1 }) as tf.RNN,
        mergeMode: 'sum',
        inputShape: [3, 2],
      }),
    ]) {
      expect(() => modelOf([layer])).toThrow(expect.objectContaining({ code: 'layer-unsupported' }))
    }
  })

  test('gradients flow through the replaced calls', () => {
    const kernel = tf.layers.dense({ units: 4, inputShape: [4], useBias: false, name: 'k' })
    const network = tf.sequential({ layers: [kernel, tf.layers.dropout({ rate: 0.5 })] })
    const model = fromLayersModel(network, {
      name: 'test',
      batch: {},
      inputs: (batch) => batch.x!,
      objective: { train: (output) => ({ loss: tf.sum(output), metrics: {} }), evaluate: () => ({}) },
    })
    const { grads } = tf.variableGrads(() => model.train({ x }, alternating).loss)
    const [gradient] = Object.values(grads)
    // Two rows of ones, times two where kept: columns 1 and 3.
    expect([...gradient!.dataSync()]).toEqual([0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4])
  })
})

describe('classification', () => {
  const model = modelOf([tf.layers.dense({ units: 3, inputShape: [2] })], classification)
  const [kernel, bias] = model.variables.map(({ tensor }) => tensor)
  kernel!.assign(
    tf.tensor2d([
      [1, 0, -1],
      [0, 2, 0],
    ]),
  )
  bias!.assign(tf.tensor1d([0, 0, 1]))
  const rows = [
    [1, 0],
    [0, 1],
    [-2, 0],
    [0.5, 0.5],
  ]
  const labels = [0, 2, 2, 1]
  const logits = rows.map(([a, b]) => [a!, 2 * b!, 1 - a!])
  const losses = logits.map(
    (row, index) => Math.log(row.reduce((sum, z) => sum + Math.exp(z), 0)) - row[labels[index]!]!,
  )

  test('training: mean loss and accuracy', () => {
    const { loss, metrics } = model.train({ x: tf.tensor2d(rows), labels: tf.tensor1d(labels, 'int32') }, alternating)
    expect(loss.dataSync()[0]).toBeCloseTo(losses.reduce((sum, value) => sum + value, 0) / 4, 5)
    expect(metrics.accuracy!.dataSync()[0]).toBe(0.75)
  })

  test('evaluation: sums, in which padding rows do not count', () => {
    const sums = model.evaluate({
      x: tf.tensor2d([...rows, [0, 0], [9, 9]]),
      labels: tf.tensor1d([...labels, -1, -1], 'int32'),
    })
    expect(sums.lossSum!.dataSync()[0]).toBeCloseTo(
      losses.reduce((sum, value) => sum + value, 0),
      5,
    )
    expect([sums.correct!.dataSync()[0], sums.count!.dataSync()[0]]).toEqual([3, 4])
  })
})
