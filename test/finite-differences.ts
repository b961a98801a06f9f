/** Gradients against central differences, on TensorFlow.js's CPU backend in float32: good to about 1e-2 for values near 1. */
import * as tf from '@tensorflow/tfjs'
import { expect } from 'vitest'

export function expectClose(actual: tf.Tensor, expected: tf.Tensor, tolerance = 1e-4): void {
  expect(actual.shape).toEqual(expected.shape)
  const [left, right] = [actual.dataSync(), expected.dataSync()]
  left.forEach((entry, i) => {
    expect(Math.abs(entry - right[i]!), `element ${i}: ${entry}, ${right[i]}`).toBeLessThanOrEqual(
      tolerance * (1 + Math.abs(right[i]!)),
    )
  })
}

/** Of the sum of f at a point where it is smooth. */
export function expectGradient(f: (x: tf.Tensor) => tf.Tensor, at: tf.Tensor): void {
  const gradient = tf.grad((x: tf.Tensor) => f(x).sum())(at)
  const step = 1e-2
  const start = at.dataSync()
  const differences = Array.from(start, (_, i) => {
    const along = (sign: number) => {
      const moved = Float32Array.from(start)
      moved[i]! += sign * step
      return Array.from(f(tf.tensor(moved, at.shape)).dataSync())
    }
    const [above, below] = [along(1), along(-1)]
    return above.reduce((sum, entry, j) => sum + (entry - below[j]!) / (2 * step), 0)
  })
  expectClose(gradient, tf.tensor(differences, at.shape), 2e-2)
}
