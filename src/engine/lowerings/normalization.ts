// SPDX-License-Identifier: Apache-2.0
/** Batch normalisation by given statistics, as in evaluation, and local response normalisation. */
import type * as tf from '@tensorflow/tfjs'
import type { GraphBuilder, GraphOutput } from '../lowering.ts'
import { fill } from './arrays.ts'
import { type LoweringEntries, lowering, node, scalar } from './nodes.ts'

/** The statistics have one number for each channel, or a shape that broadcasts; scale and offset may be absent. */
const fusedBatchNorm = lowering<tf.FusedBatchNormAttrs>((graph, inputs, { varianceEpsilon }) => {
  const { x, scale, offset, mean, variance } = inputs
  if (x!.shape.length === 4 && mean!.shape.length === 1) {
    const each = (value: number) => fill(graph, mean!.shape, value, 'float32')
    const operands = [x!, scale ?? each(1), offset ?? each(0), mean!, variance!]
    return node(graph, 'FusedBatchNormV3', operands, {
      epsilon: { float: varianceEpsilon },
      is_training: { bool: false },
    })
  }
  const deviation = node(graph, 'Sqrt', [node(graph, 'AddV2', [variance!, scalar(graph, varianceEpsilon, 'float32')])])
  const centred = node(graph, 'Sub', [x!, mean!])
  const scaled = scale === undefined ? centred : node(graph, 'Mul', [centred, scale])
  const normalised = node(graph, 'RealDiv', [scaled, deviation])
  return offset === undefined ? normalised : node(graph, 'AddV2', [normalised, offset])
})

function lrn(
  type: 'LRN' | 'LRNGrad',
  graph: GraphBuilder,
  inputs: readonly GraphOutput[],
  { depthRadius, bias, alpha, beta }: tf.LRNAttrs,
): GraphOutput {
  return node(graph, type, inputs, {
    depth_radius: { int: depthRadius },
    bias: { float: bias },
    alpha: { float: alpha },
    beta: { float: beta },
  })
}

export const normalization: LoweringEntries = [
  ['FusedBatchNorm', fusedBatchNorm],
  ['LRN', lowering<tf.LRNAttrs>((graph, { x }, attributes) => lrn('LRN', graph, [x!], attributes))],
  [
    'LRNGrad',
    lowering<tf.LRNGradAttrs>((graph, { x, y, dy }, attributes) => lrn('LRNGrad', graph, [dy!, x!, y!], attributes)),
  ],
]
