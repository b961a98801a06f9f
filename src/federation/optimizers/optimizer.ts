// SPDX-License-Identifier: Apache-2.0
/**
 * An optimizer is one pure TensorFlow.js formula over one tensor. The server compiles it into its update program, so the
 * same formula runs in TensorFlow and in plain JavaScript. To add one: a file here and a line in the wiring table.
 */
import type * as tf from '@tensorflow/tfjs'

export interface Optimizer {
  readonly name: string
  /** State per parameter element, by name, with its initial value. */
  readonly slots: Readonly<Record<string, number>>
  /** What `step` gets as rate at the given update, counted from 0, where the schedule says `scheduled`. */
  rate(scheduled: number, update: number): number
  step(input: OptimizerInput): OptimizerOutput
}

export interface OptimizerInput {
  readonly parameter: tf.Tensor
  /** Weight decay is already in it. */
  readonly gradient: tf.Tensor
  readonly slots: Readonly<Record<string, tf.Tensor>>
  readonly rate: tf.Tensor
}

export interface OptimizerOutput {
  readonly parameter: tf.Tensor
  readonly slots: Readonly<Record<string, tf.Tensor>>
}

/** The slot of that name; that it is there follows from `Optimizer.slots`. */
export function slotOf(input: OptimizerInput, name: string): tf.Tensor {
  const slot = input.slots[name]
  if (slot === undefined) throw new TypeError(`no slot ${name}`)
  return slot
}
