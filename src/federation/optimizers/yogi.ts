// SPDX-License-Identifier: Apache-2.0
/**
 * Yogi (Zaheer et al. 2018, algorithm 2): as Adam without its bias correction, but the second moment moves additively:
 * v ← v − (1 − β₂)·sign(v − g²)·g². Reddi et al. 2021 use it on a federated server, with ε = 1e-3.
 */
import * as tf from '@tensorflow/tfjs'
import { type Optimizer, slotOf } from './optimizer.ts'

export function yogi({ beta1 = 0.9, beta2 = 0.999, epsilon = 1e-3, initialAccumulator = 1e-6 } = {}): Optimizer {
  return {
    name: 'yogi',
    slots: { first: 0, second: initialAccumulator },
    rate: (scheduled) => scheduled,
    step(input) {
      const squared = tf.square(input.gradient)
      const before = slotOf(input, 'second')
      const first = tf.add(tf.mul(slotOf(input, 'first'), beta1), tf.mul(input.gradient, 1 - beta1))
      const second = tf.sub(before, tf.mul(tf.mul(tf.sign(tf.sub(before, squared)), squared), 1 - beta2))
      const change = tf.div(tf.mul(first, input.rate), tf.add(tf.sqrt(second), epsilon))
      return { parameter: tf.sub(input.parameter, change), slots: { first, second } }
    },
  }
}
