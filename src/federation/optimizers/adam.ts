// SPDX-License-Identifier: Apache-2.0
/**
 * Adam (Kingma and Ba 2015, the form before section 2.1, which TensorFlow uses): m ← β₁·m + (1 − β₁)·g,
 * v ← β₂·v + (1 − β₂)·g², w ← w − r·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ε), t counted from 1.
 */
import * as tf from '@tensorflow/tfjs'
import { type Optimizer, slotOf } from './optimizer.ts'

export function adam({ beta1 = 0.9, beta2 = 0.999, epsilon = 1e-7 } = {}): Optimizer {
  return {
    name: 'adam',
    slots: { first: 0, second: 0 },
    // In double precision: 1 − β₂ᵗ in float32 would be off by 5e-5 in the first steps.
    rate: (scheduled, update) => (scheduled * Math.sqrt(1 - beta2 ** (update + 1))) / (1 - beta1 ** (update + 1)),
    step(input) {
      const first = tf.add(tf.mul(slotOf(input, 'first'), beta1), tf.mul(input.gradient, 1 - beta1))
      const second = tf.add(tf.mul(slotOf(input, 'second'), beta2), tf.mul(tf.square(input.gradient), 1 - beta2))
      const change = tf.div(tf.mul(first, input.rate), tf.add(tf.sqrt(second), epsilon))
      return { parameter: tf.sub(input.parameter, change), slots: { first, second } }
    },
  }
}
