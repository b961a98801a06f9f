// SPDX-License-Identifier: Apache-2.0
/**
 * What a model is to the rest of Cloister: named variables and two pure TensorFlow.js functions over a batch. The engine
 * traces those functions once; nothing here knows which engine runs them.
 */
import type * as tf from '@tensorflow/tfjs'

/** Element types of batches. `uint8` exists only at the edge: a traced function sees it as `int32`. */
export type DataType = 'float32' | 'int32' | 'uint8'

/** One input of a batch. The first dimension is the batch size and is not part of `shape`. */
export interface BatchField {
  readonly shape: readonly number[]
  readonly dtype: DataType
}

export type BatchSchema = Readonly<Record<string, BatchField>>

export interface ModelVariable {
  /** Unique in the model, stable between runs: it names the tensor on the wire and in saved files. */
  readonly name: string
  readonly shape: readonly number[]
  /**
   * `weight` is trained and decayed, `unregularised` is trained without weight decay (batch-norm scale and offset, biases
   * where the paper says so), `statistic` is not trained but updated by the forward pass (batch-norm moving averages).
   */
  readonly role: 'weight' | 'unregularised' | 'statistic'
  /** float32. The engine binds it to the step's parameters while `train` or `evaluate` runs. */
  readonly tensor: tf.Variable
}

/** Randomness of one step: a function of the step's seed and the order of calls, equal on every engine. */
export interface Random {
  /** Uniform float32 in [low, high). */
  uniform(shape: number[], low?: number, high?: number): tf.Tensor
  /** Normal float32. */
  normal(shape: number[], mean?: number, standardDeviation?: number): tf.Tensor
}

export interface Model {
  readonly name: string
  readonly variables: readonly ModelVariable[]
  readonly batch: BatchSchema
  /** Mean loss over the batch, a scalar; further scalars to report. Statistic variables may be assigned. */
  train(batch: tf.NamedTensorMap, random: Random): { loss: tf.Scalar; metrics: Record<string, tf.Scalar> }
  /** Sums over the batch (`lossSum`, `correct`, `count`, …), scalars; rows that pad the last batch must not count. */
  evaluate(batch: tf.NamedTensorMap): Record<string, tf.Scalar>
  /** Fresh initial values by variable name, a function of the seed alone. */
  initialValues(seed: number): Map<string, Float32Array>
}
