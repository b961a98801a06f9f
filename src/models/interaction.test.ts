// SPDX-License-Identifier: Apache-2.0
/** Against their definitions, and their gradients against finite differences. */
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { expectGradient } from '../../test/finite-differences.ts'
import { pairIndices, pairwiseDots, sigmoidCrossEntropy } from './interaction.ts'

test('pairs are the strict lower triangle, row by row', () => {
  expect(pairIndices(4)).toEqual({ left: [1, 2, 2, 3, 3, 3], right: [0, 0, 1, 0, 1, 2] })
  expect(pairIndices(27).left).toHaveLength(351)
})

test('pairwiseDots: dot products of different vectors, of each example by itself', () => {
  const x = tf.tensor3d([
    [
      [1, 2],
      [3, 5],
      [-7, 11],
    ],
    [
      [0.5, 0],
      [4, 1],
      [2, 8],
    ],
  ])
  expect(pairwiseDots(x).arraySync()).toEqual([
    [13, 15, 34],
    [2, 1, 16],
  ])
})

test('pairwiseDots: gradient', () => {
  const x = tf.tensor3d([0.3, -1, 2, 0.7, 1.5, -0.4, 0.9, 1.1, -2, 0.6, 0.2, -0.8], [2, 3, 2])
  const weights = tf.tensor2d([1, -2, 0.5, 3, 0.25, -1], [2, 3])
  expectGradient((x) => tf.mul(pairwiseDots(x as tf.Tensor3D), weights), x)
})

test('pairwiseDots refuses what has no pairs', () => {
  expect(() => pairwiseDots(tf.zeros([2, 1, 3]))).toThrow('at least 2')
})

test('sigmoidCrossEntropy is exact where a sigmoid has become 0 or 1', () => {
  const logits = [-200, -30, -1, 0, 2, 40, 200]
  const of = (label: number) => [
    ...sigmoidCrossEntropy(tf.fill([logits.length], label), tf.tensor1d(logits)).dataSync(),
  ]
  // −log σ(x) = log(1 + e^−x); log1p(e^−30) = 9.357622968839737e-14, log1p(e^−40) = 4.248354255291589e-18.
  const expected = [200, 30, Math.log1p(Math.E), Math.LN2, Math.log1p(Math.exp(-2)), 4.248354255291589e-18, 0]
  for (const [i, value] of expected.entries()) {
    expect(of(1)[i]).toBeCloseTo(value, 5)
    // With label 0 the loss of x is that of −x with label 1.
    expect(of(0)[i]! - of(1)[i]!).toBeCloseTo(logits[i]!, 4)
  }
  expect(of(1)[5]! / 4.248354255291589e-18).toBeCloseTo(1, 6)
  expect(of(0)[1]! / 9.357622968839737e-14).toBeCloseTo(1, 6)
})

test('sigmoidCrossEntropy: gradient', () => {
  const labels = tf.tensor1d([0, 1, 0.25, 1])
  const logits = tf.tensor1d([0.7, -1.3, 2, 0.1])
  expectGradient((x) => sigmoidCrossEntropy(labels, x), logits)
  expectGradient((z) => sigmoidCrossEntropy(z, logits), labels)
})
