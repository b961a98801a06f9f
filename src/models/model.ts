// SPDX-License-Identifier: Apache-2.0
/**
 * What a model is to the rest of Cloister: named variables, tables of embeddings, and pure TensorFlow.js functions over a
 * batch. The engine traces those functions once; nothing here knows which engine runs them.
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

/**
 * A table of embedding rows, too large to be handed to a step: the servers hold it, and a batch comes with the rows that it
 * touches. Beside `field`, `train` and `evaluate` then find `rows/<name>` in the batch, float32 [capacity, width], where the
 * capacity is the batch size times the elements of the field; `field` holds indices into it instead of row ids.
 */
export interface ModelTable {
  /** Unique in the model, stable between runs. */
  readonly name: string
  readonly width: number
  /** Row ids are 0 … rows − 1. */
  readonly rows: number
  /** The int32 field of the batch that holds row ids, any number of them an example. */
  readonly field: string
  /** A row starts uniform in ±scale, a function of the job's seed, the table and the row id. */
  readonly initial: { readonly scale: number }
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
  /** Empty for a model without embeddings. */
  readonly tables: readonly ModelTable[]
  readonly batch: BatchSchema
  /** Mean loss over the batch, a scalar; further scalars to report. Statistic variables may be assigned. */
  train(batch: tf.NamedTensorMap, random: Random): { loss: tf.Scalar; metrics: Record<string, tf.Scalar> }
  /**
   * Sums over the batch: scalars (`lossSum`, `correct`, `count`, …) and vectors (histograms). Rows that pad the last batch
   * must not count.
   */
  evaluate(batch: tf.NamedTensorMap): Record<string, tf.Scalar | tf.Tensor1D>
  /** What the trained model says of a batch, `labels` apart: what an exported model computes. Each [batch size, …]. */
  predict?(batch: tf.NamedTensorMap): Record<string, tf.Tensor>
  /** Fresh initial values by variable name, a function of the seed alone. */
  initialValues(seed: number): Map<string, Float32Array>
}
