// SPDX-License-Identifier: Apache-2.0
/** The replaced backward kernels are the transpose of the forward ones, on batches of images that are not square. */
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { expectGradient } from '../../../test/finite-differences.ts'
import { mendResizing } from './resizing.ts'

mendResizing()

const alignments = [
  [false, false],
  [true, false],
  [false, true],
] as const
const sizes = [
  [7, 3],
  [2, 9],
  [1, 1],
  [4, 6],
] as const
const resizes = [tf.image.resizeBilinear, tf.image.resizeNearestNeighbor] as const

test.each(resizes.map((resize) => [resize.name, resize] as const))('%s', (_, resize) => {
  const images = tf.sin(tf.range(0, 2 * 3 * 4 * 2)).reshape([2, 3, 4, 2])
  for (const [align, half] of alignments)
    for (const size of sizes)
      expectGradient((x) => {
        const resized = resize(x as tf.Tensor4D, [...size], align, half)
        return resized.mul(tf.cos(tf.range(0, resized.size)).reshape(resized.shape))
      }, images)
})

test('doubling by the nearest pixel adds the gradients of its four copies, image by image', () => {
  const images = tf.zeros<tf.Rank.R4>([2, 1, 1, 1])
  const gradient = tf.grad((x: tf.Tensor) =>
    tf.image
      .resizeNearestNeighbor(x as tf.Tensor4D, [2, 2])
      .mul(tf.tensor4d([1, 2, 3, 4, 10, 20, 30, 40], [2, 2, 2, 1])),
  )(images)
  expect([...gradient.dataSync()]).toEqual([10, 100])
})
