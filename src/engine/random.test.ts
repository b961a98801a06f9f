// SPDX-License-Identifier: Apache-2.0
/** The step's randomness: its statistics, and that it is a function of seed and draw alone. Real TensorFlow: random.slow.test.ts. */
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { createRandom } from './random.ts'

const seedOf = (low: number, high: number) => createRandom(tf.tensor1d([low, high], 'int32'))
const numbers = (tensor: tf.Tensor) => Array.from(tensor.dataSync())

test('equal seeds and calls give equal numbers; another seed, half of a seed or draw gives others', () => {
  const first = seedOf(7, -1)
  const [a, b] = [numbers(first.uniform([9])), numbers(first.uniform([9]))]
  const again = seedOf(7, -1)
  expect([numbers(again.uniform([9])), numbers(again.uniform([9]))]).toEqual([a, b])
  const others = [a, b, numbers(seedOf(8, -1).uniform([9])), numbers(seedOf(7, 0).uniform([9]))]
  expect(new Set(others.map(String)).size).toBe(4)
})

test('a longer draw begins like a shorter one', () => {
  expect(numbers(seedOf(1, 2).normal([3, 5])).slice(0, 6)).toEqual(numbers(seedOf(1, 2).normal([6])))
})

test('uniform numbers fill [low, high) evenly', () => {
  const drawn = numbers(seedOf(3, 4).uniform([40_000], -2, 6))
  expect(Math.min(...drawn.slice(0, 40_000))).toBeGreaterThanOrEqual(-2)
  expect(Math.max(...drawn.slice(0, 40_000))).toBeLessThan(6)
  // Each of 16 bins expects 2500 of them, ± 5 standard deviations of 48.4.
  const bins = Array(16).fill(0)
  for (const value of drawn) bins[Math.floor((value + 2) * 2)]++
  for (const count of bins) expect(Math.abs(count - 2500)).toBeLessThan(242)
})

test('normal numbers have the mean, the deviation and the tails asked for', () => {
  const drawn = numbers(seedOf(5, 6).normal([40_000], 3, 0.5)).map((value) => (value - 3) / 0.5)
  const moment = (power: number) => drawn.reduce((sum, value) => sum + value ** power, 0) / drawn.length
  // Five standard errors of each moment: sqrt of 1, 2, 15 and 96, over 200.
  expect(Math.abs(moment(1))).toBeLessThan(0.025)
  expect(Math.abs(moment(2) - 1)).toBeLessThan(0.036)
  expect(Math.abs(moment(3))).toBeLessThan(0.097)
  expect(Math.abs(moment(4) - 3)).toBeLessThan(0.245)
})
