// SPDX-License-Identifier: Apache-2.0
/** The operations against their definitions in plain tf operations, and their gradients against finite differences. */
import * as tf from '@tensorflow/tfjs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { expectClose, expectGradient } from '../../test/finite-differences.ts'
import { batchNormTraining, relu, sparseSoftmaxCrossEntropy } from './operations.ts'

const bounded = { seed: 20_251, numRuns: 25 }
const value = fc.integer({ min: -300, max: 300 }).map((n) => n / 100 + 0.003)

function values(shape: readonly number[]): fc.Arbitrary<number[]> {
  const size = shape.reduce((product, dimension) => product * dimension, 1)
  return fc.array(value, { minLength: size, maxLength: size })
}

test('relu and its gradient, also of what tf.layers call', () => {
  const x = tf.tensor2d([
    [-1, 0, 2],
    [3, -0.5, 0.25],
  ])
  expect([...relu(x).dataSync()]).toEqual([0, 0, 2, 3, 0, 0.25])
  const weights = tf.tensor2d([
    [10, 20, 30],
    [40, 50, 60],
  ])
  const gradient = tf.grad((input: tf.Tensor) => relu(input).mul(weights).sum())(x)
  expect([...gradient.dataSync()]).toEqual([0, 0, 30, 40, 0, 60])
  expect(tf.getGradient('Relu').outputsToSave).toEqual([true])
})

const normalisable = fc
  .tuple(fc.integer({ min: 2, max: 5 }), fc.constantFrom([], [2], [2, 3]), fc.integer({ min: 1, max: 4 }))
  .map(([batch, space, channels]) => [batch, ...space, channels])
  .chain((shape) => fc.tuple(fc.constant(shape), values(shape), values(shape), values([2, shape.at(-1)!])))

test('batchNormTraining is what moments and the formula give, forward and backward', () => {
  fc.assert(
    fc.property(normalisable, ([shape, data, weights, affine]) =>
      tf.tidy(() => {
        const channels = shape.at(-1)!
        const x = tf.tensor(data, shape)
        const [scale, offset] = [tf.tensor1d(affine.slice(0, channels)), tf.tensor1d(affine.slice(channels))]
        const axes = shape.slice(0, -1).map((_, axis) => axis)
        const formula = (x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) => {
          const { mean, variance } = tf.moments(x, axes)
          return x.sub(mean).div(variance.add(0.1).sqrt()).mul(scale).add(offset)
        }
        const { y, mean, variance } = batchNormTraining(x, scale, offset, 0.1)
        expectClose(y, formula(x, scale, offset))
        expectClose(mean, tf.moments(x, axes).mean)
        expectClose(variance, tf.moments(x, axes).variance)
        const weight = tf.tensor(weights, shape)
        const actual = tf.grads((x, scale, offset) =>
          batchNormTraining(x, scale as tf.Tensor1D, offset as tf.Tensor1D, 0.1).y.mul(weight),
        )([x, scale, offset])
        const expected = tf.grads((x, scale, offset) => formula(x!, scale!, offset!).mul(weight))([x, scale, offset])
        actual.forEach((gradient, i) => {
          expectClose(gradient, expected[i]!, 1e-3)
        })
      }),
    ),
    bounded,
  )
})

test('batchNormTraining against finite differences', () => {
  const x = tf.tensor2d([
    [0.5, -1],
    [1.5, 2],
    [-0.7, 0.3],
  ])
  const weights = tf.tensor2d([
    [1, -2],
    [0.5, 3],
    [2, 1],
  ])
  const [scale, offset] = [tf.tensor1d([1.5, -0.5]), tf.tensor1d([0.1, 0.2])]
  expectGradient((x) => batchNormTraining(x, scale, offset, 0.01).y.mul(weights), x)
  expectGradient((scale) => batchNormTraining(x, scale as tf.Tensor1D, offset, 0.01).y.mul(weights), scale)
  expectGradient((offset) => batchNormTraining(x, scale, offset as tf.Tensor1D, 0.01).y.mul(weights), offset)
})

test('batchNormTraining refuses what it cannot normalise', () => {
  expect(() => batchNormTraining(tf.ones([2, 3]), tf.ones([2]), tf.ones([3]), 0.1)).toThrow(/scale and offset/)
  expect(() => batchNormTraining(tf.ones([3]), tf.ones([3]), tf.ones([3]), 0.1)).toThrow(/batch and a channel axis/)
})

const classified = fc
  .tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 2, max: 6 }))
  .chain(([batch, classes]) =>
    fc.tuple(
      fc.constant([batch, classes] as [number, number]),
      values([batch, classes]),
      fc.array(fc.nat(classes - 1), { minLength: batch, maxLength: batch }),
    ),
  )

test('sparseSoftmaxCrossEntropy is −log softmax at the label, forward and backward', () => {
  fc.assert(
    fc.property(classified, ([shape, data, classOf]) =>
      tf.tidy(() => {
        const logits = tf.tensor2d(data, shape)
        const labels = tf.tensor1d(classOf, 'int32')
        const formula = (logits: tf.Tensor) => tf.oneHot(labels, shape[1]).mul(tf.logSoftmax(logits)).sum(1).neg()
        expectClose(sparseSoftmaxCrossEntropy(labels, logits), formula(logits))
        const weights = tf.range(1, shape[0] + 1)
        const actual = tf.grad((logits) => sparseSoftmaxCrossEntropy(labels, logits as tf.Tensor2D).mul(weights))(
          logits,
        )
        expectClose(actual, tf.grad((logits) => formula(logits).mul(weights))(logits))
      }),
    ),
    bounded,
  )
})

test('sparseSoftmaxCrossEntropy against finite differences, and at logits that overflow exp', () => {
  const labels = tf.tensor1d([2, 0], 'int32')
  expectGradient(
    (x) => sparseSoftmaxCrossEntropy(labels, x as tf.Tensor2D),
    tf.tensor2d([
      [0.1, 2, -1],
      [1, 1, 3],
    ]),
  )
  const huge = sparseSoftmaxCrossEntropy(
    tf.tensor1d([0, 1], 'int32'),
    tf.tensor2d([
      [1000, 0],
      [1000, 0],
    ]),
  )
  expect([...huge.dataSync()]).toEqual([0, 1000])
})

test.each([-1, 3])('sparseSoftmaxCrossEntropy refuses label %i of 3 classes', (label) => {
  expect(() => sparseSoftmaxCrossEntropy(tf.tensor1d([label], 'int32'), tf.ones([1, 3]))).toThrow(`label ${label}`)
})

test('gradients leave no tensor behind', () => {
  const [x, scale] = [tf.ones([2, 3]), tf.ones([3]) as tf.Tensor1D]
  const before = tf.memory().numTensors
  tf.tidy(() => {
    tf.grad((x) =>
      sparseSoftmaxCrossEntropy(
        tf.tensor1d([0, 1], 'int32'),
        relu(batchNormTraining(x, scale, scale, 0.1).y) as tf.Tensor2D,
      ),
    )(x)
  })
  expect(tf.memory().numTensors).toBe(before)
})
