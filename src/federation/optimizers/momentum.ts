// SPDX-License-Identifier: Apache-2.0
/**
 * Momentum as TensorFlow's and PyTorch's SGD have it: v ← μ·v + g, w ← w − r·v. The rate is outside of the velocity, so
 * a change of rate acts at once (Sutskever et al. 2013 have it inside: v ← μ·v − r·g).
 */
import * as tf from '@tensorflow/tfjs'
import { type Optimizer, slotOf } from './optimizer.ts'

export function momentum(options: { readonly momentum: number }): Optimizer {
  return {
    name: 'momentum',
    slots: { velocity: 0 },
    rate: (scheduled) => scheduled,
    step(input) {
      const velocity = tf.add(tf.mul(slotOf(input, 'velocity'), options.momentum), input.gradient)
      return { parameter: tf.sub(input.parameter, tf.mul(velocity, input.rate)), slots: { velocity } }
    },
  }
}
