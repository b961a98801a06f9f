import * as tf from '@tensorflow/tfjs'
import { describe, expect, test } from 'vitest'
import { fromLayersModel, type Objective } from './layers-model.ts'
import type { Model, Random } from './model.ts'

/** Mean of the outputs: a loss that shows what the network gave. */
const meanOutput: Objective = {
  train: (output) => ({ loss: tf.mean(output), metrics: {} }),
  evaluate: (output) => ({ sum: tf.sum(output) }),
}

function modelOf(layers: tf.layers.Layer[], objective: Objective = meanOutput): Model {
  const batch = { x: { shape: [], dtype: 'float32' } } as const
  return fromLayersModel(tf.sequential({ layers }), { name: 'test', batch, objective })
}

const never: Random = {
  uniform: () => expect.unreachable(),
  normal: () => expect.unreachable(),
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

test('batch normalisation over another axis than the last is refused', () => {
  const layer = (axis: number) => tf.layers.batchNormalization({ inputShape: [2, 2, 2], axis })
  expect(() => modelOf([layer(1)])).toThrow(expect.objectContaining({ code: 'layer-unsupported' }))
  expect(modelOf([layer(3)]).variables).toHaveLength(4)
})

describe('the network', () => {
  /** Shows in its output whether it trains. */
  const batchNorm = () => tf.layers.batchNormalization({ inputShape: [1], epsilon: 1, name: 'bn' })
  const x = tf.tensor2d([[2], [4]])

  test('trains in training only, and changes its statistics there', () => {
    const model = modelOf([batchNorm()], {
      train: (output) => ({ loss: tf.sum(tf.abs(output)), metrics: {} }),
      evaluate: (output) => ({ sum: tf.sum(output) }),
    })
    // Statistics as built, mean 0 and variance 1; then those of the batch, 3 and 1.
    expect(model.evaluate({ x }).sum!.dataSync()[0]).toBeCloseTo(6 / Math.SQRT2, 5)
    expect(model.train({ x }, never).loss.dataSync()[0]).toBeCloseTo(2 / Math.SQRT2, 5)
    expect(model.variables[2]!.tensor.dataSync()[0]).toBeCloseTo(0.03, 5)
    expect(model.evaluate({ x }).sum!.dataSync()[0]).toBeCloseTo((6 - 2 * 0.03) / Math.SQRT2, 4)
  })

  test('sees the fields of the batch in the order of the schema, or what is made of them', () => {
    const inputs = ['a', 'b'].map((name) => tf.input({ shape: [1], name }))
    const outputs = tf.layers.concatenate().apply(inputs) as tf.SymbolicTensor
    const network = tf.model({ inputs, outputs })
    const field = { shape: [1], dtype: 'float32' } as const
    let seen: number[] = []
    const objective: Objective = {
      ...meanOutput,
      evaluate: (output) => {
        seen = [...output.dataSync()]
        return {}
      },
    }
    const batch = { labels: tf.tensor1d([0]), right: tf.tensor2d([[2]]), left: tf.tensor2d([[1]]) }
    const schema = { left: field, labels: { shape: [], dtype: 'int32' }, right: field } as const
    fromLayersModel(network, { name: 'test', batch: schema, objective }).evaluate(batch)
    expect(seen).toEqual([1, 2])
    fromLayersModel(network, {
      name: 'test',
      batch: schema,
      objective,
      inputs: ({ left }, random) => [left!, tf.fill([1, 1], random ? 7 : 8)],
    }).evaluate(batch)
    expect(seen).toEqual([1, 8])
  })
})
