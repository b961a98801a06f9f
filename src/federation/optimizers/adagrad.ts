// SPDX-License-Identifier: Apache-2.0
/**
 * Adagrad (Duchi et al. 2011) as Keras has it: a ← a + g², w ← w − r·g / √(a + ε). The accumulator starts at 0.1 there;
 * where rows are rare, 0 learns faster.
 */
import * as tf from '@tensorflow/tfjs'
import { type Optimizer, slotOf } from './optimizer.ts'

export function adagrad({ initialAccumulator = 0.1, epsilon = 1e-7 } = {}): Optimizer {
  return {
    name: 'adagrad',
    slots: { accumulator: initialAccumulator },
    rate: (scheduled) => scheduled,
    step(input) {
      const accumulator = tf.add(slotOf(input, 'accumulator'), tf.square(input.gradient))
      const change = tf.div(tf.mul(input.gradient, input.rate), tf.sqrt(tf.add(accumulator, epsilon)))
      return { parameter: tf.sub(input.parameter, change), slots: { accumulator } }
    },
  }
}
