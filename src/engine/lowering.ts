// SPDX-License-Identifier: Apache-2.0
/** What a lowering sees: how one TensorFlow.js kernel becomes operations of a TensorFlow graph. */

/** An output of an operation in the graph being built. */
export interface GraphOutput {
  readonly operation: unknown
  readonly index: number
  /** As TensorFlow's own shape inference gave it: known while tracing, except (-1) of outputs that are mere scratch. */
  readonly shape: readonly number[]
  readonly dtype: GraphDataType
}

export type GraphDataType = 'float32' | 'bfloat16' | 'int32' | 'bool' | 'uint8' | 'int64' | 'uint64'

/** `i:` int, `f:` float … are told apart by this tag since JavaScript has one number type. */
export type Attribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly type: GraphDataType }
  | { readonly ints: readonly number[] }
  | { readonly shape: readonly number[] }

export interface GraphBuilder {
  /** Adds one operation and returns all its outputs. A nested list is one list-valued input (Pack, ConcatV2, AddN). */
  add(
    type: string,
    inputs: readonly (GraphOutput | readonly GraphOutput[])[],
    attributes?: Readonly<Record<string, Attribute>>,
  ): readonly GraphOutput[]
  /** A Const node; equal small constants may be shared. */
  constant(values: ArrayLike<number>, shape: readonly number[], dtype: GraphDataType): GraphOutput
}

/**
 * `inputs` are the kernel's NamedTensorInfoMap with each tensor replaced by its graph output; `attributes` are TensorFlow.js's
 * own, as passed to the kernel. Returns one output, or several where the kernel has several.
 */
export type Lowering = (
  graph: GraphBuilder,
  inputs: Readonly<Record<string, GraphOutput>>,
  attributes: Readonly<Record<string, unknown>>,
) => GraphOutput | readonly GraphOutput[]
