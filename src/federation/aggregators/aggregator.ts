// SPDX-License-Identifier: Apache-2.0
/**
 * An aggregator makes one update of several: one pure TensorFlow.js formula, element by element, compiled into the
 * server's update program. To add one: a file here and a line in the wiring table.
 */
import type * as tf from '@tensorflow/tfjs'

export interface Aggregator {
  readonly name: string
  /** `updates` in the order of worker indices; `shares` are scalars, each worker's part of the examples, and sum to 1. */
  combine(updates: readonly tf.Tensor[], shares: readonly tf.Tensor[]): tf.Tensor
}
