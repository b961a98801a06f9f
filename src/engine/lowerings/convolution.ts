// SPDX-License-Identifier: Apache-2.0
/**
 * Convolutions and their backward kernels. TensorFlow.js and TensorFlow agree on `same` and `valid`; padding by number is
 * laid around the input first (see windows.ts), and channels first are transposed, which TensorFlow cannot do on a CPU.
 */
import type * as tf from '@tensorflow/tfjs'
import { EngineError } from '../engine-error.ts'
import type { GraphBuilder, GraphOutput, Lowering } from '../lowering.ts'
import { pad, slice, transpose } from './arrays.ts'
import { fused } from './matrices.ts'
import { int32s, type LoweringEntries, lowering, node, reshape } from './nodes.ts'
import { convolutionWindow, type Window } from './windows.ts'

const toChannelsLast = [0, 2, 3, 1]
const toChannelsFirst = [0, 3, 1, 2]

/** Runs `body` on tensors with the channels last, whatever the kernel's data format is. */
function channelsLast(
  graph: GraphBuilder,
  dataFormat: 'NHWC' | 'NCHW',
  tensor: GraphOutput,
  body: (tensor: GraphOutput) => GraphOutput,
): GraphOutput {
  if (dataFormat !== 'NCHW') return body(tensor)
  return transpose(graph, body(transpose(graph, tensor, toChannelsLast)), toChannelsFirst)
}

function windowAttributes({ strides, dilations, padding }: Pick<Window, 'strides' | 'dilations' | 'padding'>) {
  return {
    strides: { ints: [1, ...strides, 1] },
    dilations: { ints: [1, ...dilations, 1] },
    padding: { string: padding },
  }
}

function conv2D(graph: GraphBuilder, x: GraphOutput, filter: GraphOutput, attributes: tf.Conv2DAttrs): GraphOutput {
  return channelsLast(graph, attributes.dataFormat, x, (images) => {
    const window = convolutionWindow(images.shape, filter.shape, attributes)
    return node(graph, 'Conv2D', [window.fit(graph, images), filter], windowAttributes(window))
  })
}

const conv2DBackpropInput = lowering<tf.Conv2DBackpropInputAttrs>((graph, { dy, filter }, attributes) =>
  channelsLast(graph, attributes.dataFormat, dy!, (gradient) => {
    const { inputShape, dataFormat } = attributes
    const shape = dataFormat === 'NCHW' ? toChannelsLast.map((axis) => inputShape[axis]!) : inputShape
    const window = convolutionWindow(shape, filter!.shape, { ...attributes, dilations: 1 })
    const sizes = int32s(graph, window.fitted)
    const operands = [sizes, filter!, gradient]
    return window.unfit(graph, node(graph, 'Conv2DBackpropInput', operands, windowAttributes(window)))
  }),
)

const conv2DBackpropFilter = lowering<tf.Conv2DBackpropFilterAttrs>((graph, { x, dy }, attributes) => {
  const last = (tensor: GraphOutput) =>
    attributes.dataFormat === 'NCHW' ? transpose(graph, tensor, toChannelsLast) : tensor
  const images = last(x!)
  const window = convolutionWindow(images.shape, attributes.filterShape, { ...attributes, dilations: 1 })
  const operands = [window.fit(graph, images), int32s(graph, attributes.filterShape), last(dy!)]
  return node(graph, 'Conv2DBackpropFilter', operands, windowAttributes(window))
})

/** TensorFlow's depthwise kernels know one stride for both axes and no dilation: the filter is dilated with zeros instead. */
function depthwiseWindow(
  graph: GraphBuilder,
  shape: readonly number[],
  filterShape: readonly number[],
  attributes: tf.DepthwiseConv2dNativeAttrs | tf.DepthwiseConv2dNativeBackpropInputAttrs,
) {
  const window = convolutionWindow(shape, filterShape, { ...attributes, depthwise: true })
  const [down, right] = window.strides
  if (down !== right)
    throw new EngineError(
      'kernel-unsupported',
      `Depthwise convolution with strides ${down} and ${right}: not traceable`,
      {
        hint: 'Use one stride for both axes, or run with `--engine javascript`.',
      },
    )
  const dilate = (filter: GraphOutput) => dilated(graph, filter, window.dilations)
  return { window, dilate, attributes: windowAttributes({ ...window, dilations: [1, 1] }) }
}

function dilated(graph: GraphBuilder, filter: GraphOutput, dilations: readonly number[]): GraphOutput {
  const [down, right] = dilations as [number, number]
  if (down === 1 && right === 1) return filter
  const [height, width, channels, multiplier] = filter.shape as [number, number, number, number]
  const apart = reshape(graph, filter, [height, 1, width, 1, channels, multiplier])
  const none = [0, 0]
  const spread = pad(graph, apart, [none, [0, down - 1], none, [0, right - 1], none, none])
  const joined = reshape(graph, spread, [height * down, width * right, channels, multiplier])
  const size = [(height - 1) * down + 1, (width - 1) * right + 1, channels, multiplier]
  return slice(graph, joined, [0, 0, 0, 0], size)
}

function depthwise(
  graph: GraphBuilder,
  x: GraphOutput,
  filter: GraphOutput,
  attributes: tf.DepthwiseConv2dNativeAttrs,
): GraphOutput {
  const { window, dilate, attributes: settings } = depthwiseWindow(graph, x.shape, filter.shape, attributes)
  return node(graph, 'DepthwiseConv2dNative', [window.fit(graph, x), dilate(filter)], settings)
}

const depthwiseBackpropInput = lowering<tf.DepthwiseConv2dNativeBackpropInputAttrs>(
  (graph, { dy, filter }, attributes) => {
    const shape = attributes.inputShape
    const { window, dilate, attributes: settings } = depthwiseWindow(graph, shape, filter!.shape, attributes)
    const operands = [int32s(graph, window.fitted), dilate(filter!), dy!]
    return window.unfit(graph, node(graph, 'DepthwiseConv2dNativeBackpropInput', operands, settings))
  },
)

/** TensorFlow.js differentiates undilated depthwise convolutions only. */
const depthwiseBackpropFilter = lowering<tf.DepthwiseConv2dNativeBackpropFilterAttrs>(
  (graph, { x, dy }, attributes) => {
    const { filterShape } = attributes
    const { window, attributes: settings } = depthwiseWindow(graph, x!.shape, filterShape, {
      ...attributes,
      dilations: 1,
      inputShape: [...x!.shape] as [number, number, number, number],
    })
    const operands = [window.fit(graph, x!), int32s(graph, filterShape), dy!]
    return node(graph, 'DepthwiseConv2dNativeBackpropFilter', operands, settings)
  },
)

const conv3D = lowering<tf.Conv3DAttrs>((graph, { x, filter }, attributes) => {
  const window = convolutionWindow(x!.shape, filter!.shape, attributes)
  return node(graph, 'Conv3D', [window.fit(graph, x!), filter!], windowAttributes(window))
})

const conv3DBackpropInput = lowering<tf.Conv3DBackpropInputV2Attrs>((graph, { dy, filter }, attributes) => {
  const window = convolutionWindow(attributes.inputShape, filter!.shape, attributes)
  const operands = [int32s(graph, window.fitted), filter!, dy!]
  return window.unfit(graph, node(graph, 'Conv3DBackpropInputV2', operands, windowAttributes(window)))
})

const conv3DBackpropFilter = lowering<tf.Conv3DBackpropFilterV2Attrs>((graph, { x, dy }, attributes) => {
  const window = convolutionWindow(x!.shape, attributes.filterShape, attributes)
  const operands = [window.fit(graph, x!), int32s(graph, attributes.filterShape), dy!]
  return node(graph, 'Conv3DBackpropFilterV2', operands, windowAttributes(window))
})

/** TensorFlow's optimizer fuses convolution, bias and activation again where it has a kernel for them. */
function fusedWith<Attributes extends tf.FusedConv2DAttrs>(
  convolve: (graph: GraphBuilder, x: GraphOutput, filter: GraphOutput, attributes: Attributes) => GraphOutput,
): Lowering {
  return lowering<Attributes>((graph, inputs, attributes) =>
    fused(graph, convolve(graph, inputs.x!, inputs.filter!, attributes), inputs, attributes),
  )
}

export const convolution: LoweringEntries = [
  ['Conv2D', lowering<tf.Conv2DAttrs>((graph, { x, filter }, attributes) => conv2D(graph, x!, filter!, attributes))],
  ['Conv2DBackpropInput', conv2DBackpropInput],
  ['Conv2DBackpropFilter', conv2DBackpropFilter],
  [
    'DepthwiseConv2dNative',
    lowering<tf.DepthwiseConv2dNativeAttrs>((graph, { x, filter }, attributes) =>
      depthwise(graph, x!, filter!, attributes),
    ),
  ],
  ['DepthwiseConv2dNativeBackpropInput', depthwiseBackpropInput],
  ['DepthwiseConv2dNativeBackpropFilter', depthwiseBackpropFilter],
  ['FusedConv2D', fusedWith(conv2D)],
  ['FusedDepthwiseConv2D', fusedWith(depthwise)],
  ['Conv3D', conv3D],
  ['Conv3DBackpropInputV2', conv3DBackpropInput],
  ['Conv3DBackpropFilterV2', conv3DBackpropFilter],
]
