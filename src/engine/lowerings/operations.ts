// SPDX-License-Identifier: Apache-2.0
/** What the kernels of models/operations.ts and models/interaction.ts are in TensorFlow. */

import { pairIndices } from '../../models/interaction.ts'
import type { GraphBuilder, GraphOutput, Lowering } from '../lowering.ts'
import { pad, slice, transpose } from './arrays.ts'
import { int32s, type LoweringEntries, lowering, node, reshape, same, scalar } from './nodes.ts'

interface BatchNormAttributes {
  readonly epsilon: number
}

function training({ epsilon }: BatchNormAttributes) {
  return { epsilon: { float: epsilon }, is_training: { bool: true } }
}

/** TensorFlow normalises images only; anything else is images of one pixel. */
function asImages(graph: GraphBuilder, x: GraphOutput): GraphOutput {
  if (x.shape.length === 4) return x
  const channels = x.shape.at(-1)!
  return reshape(graph, x, [x.shape.reduce((product, size) => product * size, 1) / channels, 1, 1, channels])
}

function shapedLike(graph: GraphBuilder, y: GraphOutput, x: GraphOutput): GraphOutput {
  return x.shape.length === 4 ? y : reshape(graph, y, x.shape)
}

/** The statistics that the backward operation wants are the batch's mean and population variance: the kernel's own. */
const batchNorm = lowering<BatchNormAttributes>((graph, { x, scale, offset }, attributes) => {
  const none = graph.constant([], [0], 'float32')
  const operands = [asImages(graph, x!), scale!, offset!, none, none]
  const [y, , , mean, variance] = graph.add('FusedBatchNormV3', operands, training(attributes))
  return [shapedLike(graph, y!, x!), mean!, variance!]
})

/** TensorFlow's sixth operand is scratch of the forward operation on a GPU: unused on a CPU. */
const batchNormGrad = lowering<BatchNormAttributes>((graph, { dy, x, scale, mean, variance }, attributes) => {
  const unused = graph.constant([], [0], 'float32')
  const operands = [asImages(graph, dy!), asImages(graph, x!), scale!, mean!, variance!, unused]
  const [dx, dScale, dOffset] = graph.add('FusedBatchNormGradV3', operands, training(attributes))
  return [shapedLike(graph, dx!, x!), dScale!, dOffset!]
})

const crossEntropy: Lowering = (graph, { labels, logits }) =>
  graph.add('SparseSoftmaxCrossEntropyWithLogits', [logits!, labels!])

/**
 * All products of an example's vectors as one square, of whose row i the first i numbers are kept. Copying stretches of rows
 * takes half the time of gathering single numbers.
 */
const pairwiseDots: Lowering = (graph, { x }) => {
  const [batch, count] = x!.shape as [number, number, number]
  const products = node(graph, 'BatchMatMulV2', [x!, x!], { adj_y: { bool: true } })
  const square = reshape(graph, products, [batch, count * count])
  const kept = Array.from({ length: count - 1 }, (_, row) =>
    slice(graph, square, [0, (row + 1) * count], [batch, row + 1]),
  )
  return kept.length === 1 ? kept[0]! : node(graph, 'ConcatV2', [kept, scalar(graph, 1, 'int32')])
}

/**
 * The gradient of vector i is the sum over j of dy[i, j] x[j]: the square of dy, symmetric and zero on its diagonal, times x.
 * Each element of the square is gathered from dy, which got a zero at its end; TensorFlow's own gradient would scatter. It
 * is done with the examples in the last axis, where a gather copies whole stretches: 2.5 times as fast, transposing included.
 */
const pairwiseDotsGrad: Lowering = (graph, { dy, x }) => {
  const [batch, count] = x!.shape as [number, number, number]
  const { left, right } = pairIndices(count)
  const places = Array<number>(count * count).fill(left.length)
  for (const [pair, i] of left.entries()) {
    places[i * count + right[pair]!] = pair
    places[right[pair]! * count + i] = pair
  }
  const extended = pad(graph, transpose(graph, dy!, [1, 0]), [
    [0, 1],
    [0, 0],
  ])
  const gathered = node(graph, 'GatherV2', [extended, int32s(graph, places), scalar(graph, 0, 'int32')])
  const square = reshape(graph, transpose(graph, gathered, [1, 0]), [batch, count, count])
  return node(graph, 'BatchMatMulV2', [square, x!])
}

/** max(x, 0) − x z + log(1 + exp(−|x|)): softplus(x) − x z, which TensorFlow computes without overflow. */
const sigmoidCrossEntropy: Lowering = (graph, { labels, logits }) =>
  node(graph, 'Sub', [node(graph, 'Softplus', [logits!]), node(graph, 'Mul', [logits!, labels!])])

export const operations: LoweringEntries = [
  ['CloisterPairwiseDots', pairwiseDots],
  ['CloisterPairwiseDotsGrad', pairwiseDotsGrad],
  ['CloisterSigmoidCrossEntropy', sigmoidCrossEntropy],
  ['CloisterReluGrad', same('ReluGrad', 'dy', 'y')],
  ['CloisterBatchNorm', batchNorm],
  ['CloisterBatchNormGrad', batchNormGrad],
  ['CloisterSparseSoftmaxCrossEntropy', crossEntropy],
]
