// SPDX-License-Identifier: Apache-2.0
/**
 * An engine runs programs. A program is a pure TensorFlow.js function over named tensors; the TensorFlow engine traces it
 * once into a graph, the JavaScript engine runs it as it stands. Training steps, evaluation, optimizers and aggregation
 * are all programs, so that each formula is written once and gives the same numbers on both engines.
 */
import type * as tf from '@tensorflow/tfjs'
import type { DataType } from '../models/model.ts'

/** bfloat16 is how float32 may lie in memory and travel: a program that has such inputs computes with float32. */
export type ElementType = DataType | 'bfloat16'

export interface TensorSpec {
  readonly shape: readonly number[]
  readonly dtype: ElementType
}

export type Signature = Readonly<Record<string, TensorSpec>>

export type TypedArray = Float32Array | Int32Array | Uint8Array | Uint16Array

/** Values in JavaScript memory. `data.length` is the product of `shape`. */
export interface HostTensor extends TensorSpec {
  readonly data: TypedArray
}

/**
 * Values in the engine's memory. `data` is a view without a copy and must not be used after `dispose`, which frees the
 * memory once; disposing twice is harmless.
 */
export interface EngineTensor extends HostTensor {
  dispose(): void
}

export interface ProgramDefinition {
  /** Names the graph in TensorBoard and in errors. */
  readonly name: string
  readonly inputs: Signature
  /** Pure: same inputs, same outputs. Reading a value (`dataSync`) inside is an error when traced. */
  readonly build: (inputs: Record<string, tf.Tensor>) => Record<string, tf.Tensor>
  /** Outputs of float32 that are given as bfloat16, rounded to the nearest. */
  readonly rounded?: ReadonlySet<string>
}

export interface RunOptions {
  /** Only these outputs are computed; all when absent. */
  readonly outputs?: readonly string[]
  readonly signal?: AbortSignal
}

export interface Program {
  readonly name: string
  readonly inputs: Signature
  /** Off the event loop on TensorFlow. Inputs are not consumed; outputs are the caller's to dispose. */
  run(inputs: Readonly<Record<string, HostTensor>>, options?: RunOptions): Promise<Record<string, EngineTensor>>
  /** Serialised TensorFlow GraphDef; undefined on the JavaScript engine. */
  graphDef(): Uint8Array | undefined
  close(): Promise<void>
}

export interface Engine {
  readonly kind: 'tensorflow' | 'javascript'
  /** One line for logs: version, oneDNN, threads. */
  readonly description: string
  compile(definition: ProgramDefinition): Program
  /** Memory of the engine, zeroed or copied from `data`. */
  tensor(spec: TensorSpec, data?: TypedArray): EngineTensor
  close(): Promise<void>
}
