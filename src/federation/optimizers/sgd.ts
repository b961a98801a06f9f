// SPDX-License-Identifier: Apache-2.0
/** Stochastic gradient descent: w ← w − r·g. */
import * as tf from '@tensorflow/tfjs'
import type { Optimizer } from './optimizer.ts'

export function sgd(): Optimizer {
  return {
    name: 'sgd',
    slots: {},
    rate: (scheduled) => scheduled,
    step: ({ parameter, gradient, rate }) => ({ parameter: tf.sub(parameter, tf.mul(gradient, rate)), slots: {} }),
  }
}
