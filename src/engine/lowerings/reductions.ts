// SPDX-License-Identifier: Apache-2.0
/** Kernels that fold axes away or run along them. */
import type * as tf from '@tensorflow/tfjs'
import type { GraphBuilder, GraphDataType, GraphOutput, Lowering } from '../lowering.ts'
import { axesOf, cast, int32s, type LoweringEntries, lowering, node, scalar } from './nodes.ts'

/** What the reductions have in common; `Max` alone names its axes differently. */
interface ReductionAttributes {
  readonly axis?: number | number[]
  readonly reductionIndices?: number | number[]
  readonly keepDims?: boolean
}

function reduction(type: string, prepare: (graph: GraphBuilder, x: GraphOutput) => GraphOutput = (_, x) => x) {
  return lowering<ReductionAttributes>((graph, { x }, { axis, reductionIndices, keepDims = false }) => {
    const axes = int32s(graph, axesOf(axis ?? reductionIndices, x!))
    return node(graph, type, [prepare(graph, x!), axes], { keep_dims: { bool: keepDims } })
  })
}

/** Booleans are counted. */
function counted(graph: GraphBuilder, x: GraphOutput): GraphOutput {
  return x.dtype === 'bool' ? cast(graph, x, 'int32') : x
}

function as(dtype: GraphDataType) {
  return (graph: GraphBuilder, x: GraphOutput) => cast(graph, x, dtype)
}

/** TensorFlow.js's indices are int32, TensorFlow's int64 unless told. */
function extremeIndex(type: 'ArgMax' | 'ArgMin'): Lowering {
  return lowering<tf.ArgMaxAttrs>((graph, { x }, { axis }) =>
    node(graph, type, [x!, scalar(graph, axesOf(axis, x!)[0] ?? 0, 'int32')], { output_type: { type: 'int32' } }),
  )
}

function cumulative(type: 'Cumsum' | 'Cumprod'): Lowering {
  return lowering<tf.CumsumAttrs>((graph, { x }, { axis, exclusive, reverse }) =>
    node(graph, type, [counted(graph, x!), scalar(graph, axesOf(axis, x!)[0]!, 'int32')], {
      exclusive: { bool: exclusive },
      reverse: { bool: reverse },
    }),
  )
}

export const reductions: LoweringEntries = [
  ['Sum', reduction('Sum', counted)],
  ['Mean', reduction('Mean', as('float32'))],
  ['Prod', reduction('Prod', counted)],
  ['Max', reduction('Max')],
  ['Min', reduction('Min')],
  ['All', reduction('All', as('bool'))],
  ['Any', reduction('Any', as('bool'))],
  ['ArgMax', extremeIndex('ArgMax')],
  ['ArgMin', extremeIndex('ArgMin')],
  ['Cumsum', cumulative('Cumsum')],
  ['Cumprod', cumulative('Cumprod')],
  [
    'TopK',
    lowering<tf.TopKAttrs>((graph, { x }, { k, sorted }) =>
      graph.add('TopKV2', [x!, scalar(graph, k, 'int32')], { sorted: { bool: sorted } }),
    ),
  ],
]
