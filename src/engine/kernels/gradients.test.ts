// SPDX-License-Identifier: Apache-2.0
/** Each mended gradient is that of its forward kernel, where TensorFlow.js's own was wrong and where it was right. */
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { expectGradient } from '../../../test/finite-differences.ts'
import { mendGradients } from './gradients.ts'

mendGradients()

/** Values and weights without symmetry. */
function uneven(shape: number[]): tf.Tensor {
  return tf.sin(tf.range(1, 1 + tf.util.sizeFromShape(shape)).mul(1.3)).reshape(shape)
}

function weighted(y: tf.Tensor): tf.Tensor {
  return y.mul(uneven(y.shape).add(0.3))
}

test.each(['same', 'valid', 1] as const)('average pooling padded by %s', (pad) => {
  expectGradient((x) => weighted(tf.avgPool(x as tf.Tensor4D, 3, 2, pad)), uneven([2, 5, 4, 2]))
})

test.each(['same', 'valid'] as const)('average pooling in three dimensions padded by %s', (pad) => {
  expectGradient((x) => weighted(tf.avgPool3d(x as tf.Tensor5D, [2, 3, 2], [1, 2, 1], pad)), uneven([1, 3, 3, 4, 1]))
})

test.each([0, 1, 2])('cumsum along axis %i', (axis) => {
  for (const [exclusive, reverse] of [
    [false, false],
    [true, false],
    [true, true],
  ] as const)
    expectGradient((x) => weighted(tf.cumsum(x, axis, exclusive, reverse)), uneven([2, 3, 4]))
})

test.each(['reflect', 'symmetric'] as const)('mirrorPad, %s', (mode) => {
  const paddings: [number, number][] = [
    [1, 0],
    [2, 1],
    [0, 2],
  ]
  expectGradient((x) => weighted(tf.mirrorPad(x, paddings, mode)), uneven([2, 3, 4]))
})

test('mirrorPad by nothing', () => {
  const gradient = tf.grad((x: tf.Tensor) => tf.mirrorPad(x, [[0, 0]], 'reflect').square())(tf.tensor1d([1, 2, 3]))
  expect([...gradient.dataSync()]).toEqual([2, 4, 6])
})

test('conv3dTranspose', () => {
  const convolve = (x: tf.Tensor, filter: tf.Tensor) =>
    weighted(tf.conv3dTranspose(x as tf.Tensor5D, filter as tf.Tensor5D, [1, 5, 5, 3, 2], [2, 2, 1], 'same'))
  const [x, filter] = [uneven([1, 3, 3, 3, 2]), uneven([2, 3, 1, 2, 2])]
  expectGradient((x) => convolve(x, filter), x)
  expectGradient((filter) => convolve(x, filter), filter)
})

test.each([tf.equal, tf.notEqual, tf.greater, tf.less, tf.lessEqual])('what is chosen by %s', (compare) => {
  expectGradient((x) => weighted(tf.where(compare(x, x.reverse()), x.square(), x.neg())), uneven([7]))
  expectGradient((x) => weighted(x.mul(compare(x, 0.1).cast('float32'))), uneven([7]))
})
