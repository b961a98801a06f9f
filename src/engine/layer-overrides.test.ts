// SPDX-License-Identifier: Apache-2.0
/** TensorFlow.js's layers under the overrides: what they compute, that they are seeded, and that they come back. */
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { expectClose } from '../../test/finite-differences.ts'
import { withLayerOverrides } from './layer-overrides.ts'
import { createRandom } from './random.ts'

const random = (seed = 1) => createRandom(tf.tensor1d([seed, 2], 'int32'))
const x = tf.sin(tf.range(0, 40 * 6 * 3)).reshape([40, 6, 3])

function apply(layer: tf.layers.Layer, input: tf.Tensor, training: boolean, seed = 1): tf.Tensor {
  return withLayerOverrides(random(seed), () => layer.apply(input, { training }) as tf.Tensor)
}

const noisy: Readonly<Record<string, () => tf.layers.Layer>> = {
  dropout: () => tf.layers.dropout({ rate: 0.4 }),
  spatialDropout1d: () => tf.layers.spatialDropout1d({ rate: 0.4 }),
  gaussianNoise: () => tf.layers.gaussianNoise({ stddev: 0.3 }),
  gaussianDropout: () => tf.layers.gaussianDropout({ rate: 0.4 }),
  alphaDropout: () => tf.layers.alphaDropout({ rate: 0.4 }),
}

test.each(Object.entries(noisy))(
  '%s depends on the seed alone in training, and does nothing otherwise',
  (_, create) => {
    const layer = create()
    const trained = apply(layer, x, true).dataSync()
    expect(apply(layer, x, true).dataSync()).toEqual(trained)
    expect(apply(layer, x, true, 9).dataSync()).not.toEqual(trained)
    expect(apply(layer, x, false).dataSync()).toEqual(x.dataSync())
  },
)

test('dropout drops its share and scales the rest', () => {
  const ones = tf.ones([100, 100])
  const values = apply(tf.layers.dropout({ rate: 0.3 }), ones, true).dataSync()
  const kept = values.filter((value) => value !== 0)
  for (const value of kept) expect(value).toBeCloseTo(1 / 0.7, 6)
  // 7000 expected, five standard deviations of 46.
  expect(Math.abs(kept.length - 7000)).toBeLessThan(230)
})

test('a noise shape is kept: spatial dropout drops whole channels', () => {
  const dropped = apply(tf.layers.spatialDropout1d({ rate: 0.5 }), tf.ones([30, 6, 4]), true)
  const perChannel = dropped.sum(1).dataSync()
  for (const sum of perChannel) expect([0, 12]).toContain(sum)
  const rows = apply(tf.layers.dropout({ rate: 0.5, noiseShape: [40, 1] }), tf.ones([40, 5]), true)
  for (const sum of rows.sum(1).dataSync()) expect([0, 10]).toContain(sum)
})

test('alpha dropout keeps mean and variance of what is normal', () => {
  const normal = random(5).normal([200, 200])
  const { mean, variance } = tf.moments(apply(tf.layers.alphaDropout({ rate: 0.3 }), normal, true))
  expect(Math.abs(mean.dataSync()[0]!)).toBeLessThan(0.03)
  expect(Math.abs(variance.dataSync()[0]! - 1)).toBeLessThan(0.05)
})

/** A layer's output, and its moving averages, in training. */
function normalise(layer: tf.layers.Layer, input: tf.Tensor, overridden: boolean): tf.Tensor[] {
  const run = () => layer.apply(input, { training: true }) as tf.Tensor
  const y = overridden ? withLayerOverrides(random(), run) : run()
  return [y, ...layer.getWeights().slice(-2)]
}

test.each([
  { shape: [8, 5], axis: -1 },
  { shape: [4, 6, 5], axis: 2 },
  { shape: [3, 4, 2, 5], axis: -1 },
  { shape: [3, 5, 4, 2], axis: 1 },
])('batch normalisation of $shape along $axis is what the layer computes itself', ({ shape, axis }) => {
  const input = tf
    .sin(tf.range(0, tf.util.sizeFromShape(shape)))
    .mul(3)
    .add(1)
    .reshape(shape)
  const create = () => tf.layers.batchNormalization({ axis, momentum: 0.7, epsilon: 0.01, inputShape: shape.slice(1) })
  // TensorFlow.js's own goes astray along any but the last axis: there it is asked about the transposed input.
  const last = axis === -1 || axis === shape.length - 1
  const order = last ? shape.map((_, i) => i) : [0, 2, 3, 1]
  const back = last ? order : [0, 3, 1, 2]
  const actual = normalise(create(), input, true)
  const reference = tf.layers.batchNormalization({ momentum: 0.7, epsilon: 0.01 })
  const [y, ...averages] = normalise(reference, input.transpose(order), false)
  expectClose(actual[0]!, y!.transpose(back))
  averages.forEach((average, i) => {
    expectClose(actual[i + 1]!, average)
  })
})

test('batch normalisation without scale or offset, on which TensorFlow.js fails', () => {
  const layer = tf.layers.batchNormalization({ center: false, scale: false, epsilon: 1e-6 })
  const { mean, variance } = tf.moments(apply(layer, x, true), [0, 1])
  expectClose(mean, tf.zeros([3]))
  expectClose(variance, tf.ones([3]))
})

test.each(['simpleRNN', 'gru', 'lstm'] as const)('masks of %s are drawn from the seed, and none is kept', (kind) => {
  const layer = tf.layers[kind]({ units: 4, dropout: 0.5, recurrentDropout: 0.5, recurrentInitializer: 'glorotNormal' })
  const trained = tf.tidy(() => Array.from(apply(layer, x, true).dataSync()))
  const before = tf.memory().numTensors
  expect(tf.tidy(() => Array.from(apply(layer, x, true).dataSync()))).toEqual(trained)
  expect(tf.tidy(() => Array.from(apply(layer, x, true, 9).dataSync()))).not.toEqual(trained)
  expect(tf.memory().numTensors).toBe(before)
  expect(layer.getConfig()).toMatchObject({ dropout: 0.5 })
})

test('the layers are their own again after the body, also when it throws', () => {
  const ownCall = tf.layers.dropout({ rate: 0.5 }).call
  expect(() =>
    withLayerOverrides(random(), () => {
      expect(tf.layers.dropout({ rate: 0.5 }).call).not.toBe(ownCall)
      throw new Error('as it happens')
    }),
  ).toThrow('as it happens')
  expect(tf.layers.dropout({ rate: 0.5 }).call).toBe(ownCall)
  expect(() => withLayerOverrides(random(), async () => {})).toThrow('synchronous')
})
