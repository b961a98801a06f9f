// SPDX-License-Identifier: Apache-2.0
/** Matrix products, einsum, and the bias and activation that the fused kernels add to a product or a convolution. */
import type * as tf from '@tensorflow/tfjs'
import { EngineError } from '../engine-error.ts'
import type { GraphBuilder, GraphOutput } from '../lowering.ts'
import { leakyRelu, prelu } from './elementwise.ts'
import { type LoweringEntries, listOf, lowering, node, reshape } from './nodes.ts'

/**
 * Batch axes broadcast. A batch of one, which TensorFlow.js makes of every dense layer, is taken as the plain matrices that
 * it is: TensorFlow multiplies those faster and can fuse the product with what `finish` makes of it.
 */
function matMul(
  graph: GraphBuilder,
  a: GraphOutput,
  b: GraphOutput,
  { transposeA, transposeB }: tf.BatchMatMulAttrs,
  finish: (product: GraphOutput) => GraphOutput,
): GraphOutput {
  const batches = [a, b].map(({ shape }) => shape.slice(0, -2))
  if (batches.flat().some((size) => size !== 1))
    return finish(node(graph, 'BatchMatMulV2', [a, b], { adj_x: { bool: transposeA }, adj_y: { bool: transposeB } }))
  const matrices = [a, b].map((x) => (x.shape.length === 2 ? x : reshape(graph, x, x.shape.slice(-2))))
  const attributes = { transpose_a: { bool: transposeA }, transpose_b: { bool: transposeB } }
  const product = finish(node(graph, 'MatMul', matrices, attributes))
  const ones = batches.reduce((longer, batch) => (batch.length > longer.length ? batch : longer))
  return ones.length === 0 ? product : reshape(graph, product, [...ones, ...product.shape.slice(-2)])
}

interface FusedAttributes {
  readonly activation?: string
  readonly leakyreluAlpha?: number
}

/** Adds the bias, if any, then applies the activation, if any. */
export function fused(
  graph: GraphBuilder,
  product: GraphOutput,
  inputs: Readonly<Record<string, GraphOutput>>,
  attributes: FusedAttributes,
): GraphOutput {
  const { bias, preluActivationWeights } = inputs
  if (bias === undefined) return activated(graph, product, attributes, preluActivationWeights)
  const type = bias.shape.length === 1 && product.shape.length > 1 ? 'BiasAdd' : 'AddV2'
  return activated(graph, node(graph, type, [product, bias]), attributes, preluActivationWeights)
}

function activated(
  graph: GraphBuilder,
  x: GraphOutput,
  { activation = 'linear', leakyreluAlpha = 0.2 }: FusedAttributes,
  weights: GraphOutput | undefined,
): GraphOutput {
  switch (activation) {
    case 'linear':
      return x
    case 'relu':
      return node(graph, 'Relu', [x])
    case 'relu6':
      return node(graph, 'Relu6', [x])
    case 'elu':
      return node(graph, 'Elu', [x])
    case 'sigmoid':
      return node(graph, 'Sigmoid', [x])
    case 'leakyrelu':
      return leakyRelu(graph, x, leakyreluAlpha)
    case 'prelu':
      return prelu(graph, x, weights!)
    default:
      throw new EngineError('kernel-unsupported', `A fused kernel with the activation '${activation}': not traceable`, {
        hint: 'Apply the activation after the layer, or run with `--engine javascript`.',
      })
  }
}

export const matrices: LoweringEntries = [
  [
    'BatchMatMul',
    lowering<tf.BatchMatMulAttrs>((graph, { a, b }, attributes) =>
      matMul(graph, a!, b!, attributes, (product) => product),
    ),
  ],
  [
    '_FusedMatMul',
    lowering<tf._FusedMatMulAttrs>((graph, inputs, attributes) =>
      matMul(graph, inputs.a!, inputs.b!, attributes, (product) => fused(graph, product, inputs, attributes)),
    ),
  ],
  [
    'Einsum',
    lowering<tf.EinsumAttrs>((graph, inputs, { equation }) =>
      node(graph, 'Einsum', [listOf(inputs)], { equation: { string: equation } }),
    ),
  ],
]
