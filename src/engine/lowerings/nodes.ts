// SPDX-License-Identifier: Apache-2.0
/** The words that lowerings are written in: one-output operations, constants, and the plain renaming of a kernel. */
import * as tf from '@tensorflow/tfjs'
import type { Attribute, GraphBuilder, GraphDataType, GraphOutput, Lowering } from '../lowering.ts'

export type LoweringEntries = readonly (readonly [kernel: string, lowering: Lowering])[]

/** Adds an operation and returns its first output. */
export function node(
  graph: GraphBuilder,
  type: string,
  inputs: readonly (GraphOutput | readonly GraphOutput[])[],
  attributes: Readonly<Record<string, Attribute>> = {},
): GraphOutput {
  return graph.add(type, inputs, attributes)[0]!
}

/** An int32 vector: shapes, axes, sizes. */
export function int32s(graph: GraphBuilder, values: readonly number[]): GraphOutput {
  return graph.constant(values, [values.length], 'int32')
}

export function scalar(graph: GraphBuilder, value: number, dtype: GraphDataType): GraphOutput {
  return graph.constant([value], [], dtype)
}

export function cast(graph: GraphBuilder, x: GraphOutput, to: GraphDataType): GraphOutput {
  return x.dtype === to ? x : node(graph, 'Cast', [x], { DstT: { type: to } })
}

export function reshape(graph: GraphBuilder, x: GraphOutput, shape: readonly number[]): GraphOutput {
  return node(graph, 'Reshape', [x, int32s(graph, shape)])
}

/** Axes as a kernel states them (none, one, several, negative) made a plain list. */
export function axesOf(axis: number | number[] | null | undefined, x: GraphOutput): number[] {
  return tf.util.parseAxisParam(axis as number | number[], [...x.shape])
}

/** A lowering whose attributes have the type that TensorFlow.js declares for the kernel. */
export function lowering<Attributes>(
  lower: (
    graph: GraphBuilder,
    inputs: Readonly<Record<string, GraphOutput>>,
    attributes: Attributes,
  ) => GraphOutput | readonly GraphOutput[],
): Lowering {
  return (graph, inputs, attributes) => lower(graph, inputs, attributes as Attributes)
}

/** The kernel is TensorFlow's operation of that name over the named inputs, without attributes. */
export function same(type: string, ...names: readonly string[]): Lowering {
  return (graph, inputs) =>
    node(
      graph,
      type,
      names.map((name) => inputs[name]!),
    )
}

/** The inputs of a kernel that takes a list: TensorFlow.js passes an array, whose keys are '0', '1', …. */
export function listOf(inputs: Readonly<Record<string, GraphOutput>>): GraphOutput[] {
  return Object.keys(inputs)
    .sort((left, right) => Number(left) - Number(right))
    .map((key) => inputs[key]!)
}
