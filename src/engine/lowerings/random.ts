// SPDX-License-Identifier: Apache-2.0
/** The kernels of ../random.ts: TensorFlow's stateless Philox, its key being the seed and its counter the number of the draw. */
import type { GraphOutput, Lowering } from '../lowering.ts'
import { int32s, type LoweringEntries, lowering, node, reshape, scalar } from './nodes.ts'

/** TensorFlow's number for Philox 4×32-10. */
const philox = 1

function draw(type: 'StatelessRandomUniformV2' | 'StatelessRandomNormalV2'): Lowering {
  return lowering<{ shape: readonly number[]; draw: number }>((graph, { seed }, { shape, draw }) => {
    // Two int32 make one uint64 in the order of memory: the low half first.
    const wide = (pairs: GraphOutput) => node(graph, 'Bitcast', [pairs], { type: { type: 'uint64' } })
    const key = reshape(graph, wide(seed!), [1])
    const counter = wide(graph.constant([0, 0, draw, 0], [2, 2], 'int32'))
    return node(graph, type, [int32s(graph, shape), key, counter, scalar(graph, philox, 'int32')], {
      dtype: { type: 'float32' },
    })
  })
}

export const random: LoweringEntries = [
  ['CloisterRandomUniform', draw('StatelessRandomUniformV2')],
  ['CloisterRandomNormal', draw('StatelessRandomNormalV2')],
]
