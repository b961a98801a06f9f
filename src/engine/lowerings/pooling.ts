// SPDX-License-Identifier: Apache-2.0
/** Maximum and average over windows in two and three dimensions, and their backward kernels. Channels are always last. */
import type * as tf from '@tensorflow/tfjs'
import type { GraphOutput, Lowering } from '../lowering.ts'
import { fill } from './arrays.ts'
import { int32s, type LoweringEntries, lowering, node } from './nodes.ts'
import { poolingWindow, type Window } from './windows.ts'

type Attributes = tf.AvgPoolAttrs | tf.AvgPool3DAttrs

function attributesOf({ size, strides, padding }: Window) {
  return { ksize: { ints: [1, ...size, 1] }, strides: { ints: [1, ...strides, 1] }, padding: { string: padding } }
}

/** What is padded must never be the greatest. */
const outside = Number.NEGATIVE_INFINITY

function maxPool(type: 'MaxPool' | 'MaxPool3D'): Lowering {
  return lowering<Attributes>((graph, { x }, attributes) => {
    const window = poolingWindow(x!.shape, attributes.filterSize, attributes)
    return node(graph, type, [window.fit(graph, x!, outside)], attributesOf(window))
  })
}

function maxPoolGrad(type: 'MaxPoolGrad' | 'MaxPool3DGrad'): Lowering {
  return lowering<Attributes>((graph, { dy, input, output }, attributes) => {
    const window = poolingWindow(input!.shape, attributes.filterSize, attributes)
    const operands = [window.fit(graph, input!, outside), output!, dy!]
    return window.unfit(graph, node(graph, type, operands, attributesOf(window)))
  })
}

/** Only what lies inside the input is averaged: the share of zeros laid around it is taken away again. */
function avgPool(type: 'AvgPool' | 'AvgPool3D'): Lowering {
  return lowering<Attributes>((graph, { x }, attributes) => {
    const window = poolingWindow(x!.shape, attributes.filterSize, attributes)
    const average = (images: GraphOutput) => node(graph, type, [window.fit(graph, images)], attributesOf(window))
    if (window.fitted === x!.shape) return average(x!)
    return node(graph, 'RealDiv', [average(x!), average(fill(graph, x!.shape, 1, 'float32'))])
  })
}

/** TensorFlow.js's kernel divides by the whole window even at the edges, as if the input had been padded with zeros. */
function avgPoolGrad(type: 'AvgPoolGrad' | 'AvgPool3DGrad'): Lowering {
  return lowering<Attributes>((graph, { dy, input }, attributes) => {
    const window = poolingWindow(input!.shape, attributes.filterSize, attributes, true)
    const operands = [int32s(graph, window.fitted), dy!]
    return window.unfit(graph, node(graph, type, operands, attributesOf(window)))
  })
}

export const pooling: LoweringEntries = [
  ['MaxPool', maxPool('MaxPool')],
  ['MaxPoolGrad', maxPoolGrad('MaxPoolGrad')],
  ['AvgPool', avgPool('AvgPool')],
  ['AvgPoolGrad', avgPoolGrad('AvgPoolGrad')],
  ['MaxPool3D', maxPool('MaxPool3D')],
  ['MaxPool3DGrad', maxPoolGrad('MaxPool3DGrad')],
  ['AvgPool3D', avgPool('AvgPool3D')],
  ['AvgPool3DGrad', avgPoolGrad('AvgPool3DGrad')],
]
