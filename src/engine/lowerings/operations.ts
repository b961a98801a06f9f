// SPDX-License-Identifier: Apache-2.0
/** What the kernels of models/operations.ts are in TensorFlow, which has one operation for each. */
import type { GraphBuilder, GraphOutput, Lowering } from '../lowering.ts'
import { type LoweringEntries, lowering, reshape, same } from './nodes.ts'

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

export const operations: LoweringEntries = [
  ['CloisterReluGrad', same('ReluGrad', 'dy', 'y')],
  ['CloisterBatchNorm', batchNorm],
  ['CloisterBatchNormGrad', batchNormGrad],
  ['CloisterSparseSoftmaxCrossEntropy', crossEntropy],
]
