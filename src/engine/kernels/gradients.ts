// SPDX-License-Identifier: Apache-2.0
/**
 * Gradients that TensorFlow.js 4.22 gets wrong without a word, or lacks, put right for both engines: TensorFlow.js keeps one
 * table of them for all backends. gradients.test.ts holds each against finite differences.
 */
import * as tf from '@tensorflow/tfjs'

type Backward = (dy: tf.Tensor, x: tf.Tensor, attributes: tf.NamedAttrMap) => tf.Tensor

/** Registers all of them, in the place of TensorFlow.js's own; an engine does so when it is created. */
export function mendGradients(): void {
  for (const gradient of gradients) tf.registerGradient(gradient)
}

function ofOneInput(kernelName: string, backward: Backward): tf.GradConfig {
  return {
    kernelName,
    inputsToSave: ['x'],
    gradFunc: (dy, [x], attributes) => ({ x: () => backward(dy as tf.Tensor, x!, attributes) }),
  }
}

/**
 * Average pooling: the forward kernels average what lies inside the input, the backward ones divide by the whole window.
 * Scaling dy by the quotient of the two makes the gradient that of the forward kernel. `covered` counts how many elements
 * of the input each window covers: it is the sum over the window of an image of ones.
 */
function averagePooling(
  kernelName: 'AvgPool' | 'AvgPool3D',
  covered: (x: tf.Tensor, filter: number[], attributes: PoolAttributes) => tf.Tensor,
): tf.GradConfig {
  return ofOneInput(kernelName, (dy, x, attributes) => {
    const pool = attributes as unknown as PoolAttributes
    const { filterSize } = pool
    const filter: number[] = typeof filterSize === 'number' ? Array(x.rank - 2).fill(filterSize) : filterSize
    const share = () => tf.div(tf.util.sizeFromShape(filter), covered(x, filter, pool))
    const scaled = pool.pad === 'valid' ? dy : tf.mul(dy, share())
    return tf.engine().runKernel(`${kernelName}Grad`, { dy: scaled, input: x }, attributes)
  })
}

interface PoolAttributes {
  readonly filterSize: number | number[]
  readonly strides: number | number[]
  readonly pad: 'valid' | 'same' | number
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil'
}

const averagePooling2D = averagePooling('AvgPool', (x, filter, { strides, pad, dimRoundingMode }) => {
  const image = tf.ones<tf.Rank.R4>([1, x.shape[1]!, x.shape[2]!, 1])
  const ones = tf.ones<tf.Rank.R4>([filter[0]!, filter[1]!, 1, 1])
  return tf.conv2d(image, ones, strides as [number, number], pad, 'NHWC', 1, dimRoundingMode)
})

const averagePooling3D = averagePooling('AvgPool3D', (x, filter, { strides, pad }) => {
  const image = tf.ones<tf.Rank.R5>([1, x.shape[1]!, x.shape[2]!, x.shape[3]!, 1])
  const ones = tf.ones<tf.Rank.R5>([filter[0]!, filter[1]!, filter[2]!, 1, 1])
  return tf.conv3d(image, ones, strides as [number, number, number], pad as 'same')
})

/** Cumulative sum: the gradient along any axis but the last came transposed. */
const cumulativeSum = ofOneInput('Cumsum', (dy, _, { axis, exclusive, reverse }) =>
  tf.cumsum(dy, axis as number, exclusive as boolean, !(reverse as boolean)),
)

/** Padding by reflection: what the border mirrors belongs to the gradient too. Axis by axis, the border folds back. */
const mirrorPadding = ofOneInput('MirrorPad', (dy, x, { paddings, mode }) => {
  // Reflection leaves out the outermost element itself, symmetry repeats it.
  const skipped = mode === 'reflect' ? 1 : 0
  return (paddings as [number, number][]).reduce((gradient, [before, after], axis) => {
    const size = x.shape[axis]!
    const part = (start: number, length: number) => {
      const [begin, extent] = [gradient.shape.map(() => 0), [...gradient.shape]]
      begin[axis] = start
      extent[axis] = length
      return gradient.slice(begin, extent)
    }
    const placed = (border: tf.Tensor, start: number) =>
      border
        .reverse(axis)
        .pad(border.shape.map((length, i): [number, number] => (i === axis ? [start, size - start - length] : [0, 0])))
    const head = placed(part(0, before), skipped)
    const tail = placed(part(before + size, after), size - after - skipped)
    return part(before, size).add(head).add(tail)
  }, dy)
})

/** Comparisons are constant wherever they have a derivative; TensorFlow.js knows so of GreaterEqual only. */
const comparisons = ['Equal', 'NotEqual', 'Greater', 'Less', 'LessEqual'].map(
  (kernelName): tf.GradConfig => ({
    kernelName,
    inputsToSave: ['a', 'b'],
    gradFunc: (_, [a, b]) => ({ a: () => tf.zeros(a!.shape), b: () => tf.zeros(b!.shape) }),
  }),
)

/** Transposed convolution in three dimensions: it is linear in both operands, and its backward kernels are known. */
const transposedConvolution3D: tf.GradConfig = {
  kernelName: 'Conv3DBackpropInputV2',
  inputsToSave: ['dy', 'filter'],
  gradFunc: (ddx, saved, { strides, pad }) => {
    const [dy, filter] = saved as [tf.Tensor5D, tf.Tensor5D]
    const placement = { strides: strides as number, pad: pad as 'same' | 'valid' }
    const operands = { x: ddx as tf.Tensor, dy }
    const attributes = { ...placement, filterShape: filter.shape }
    return {
      dy: () => tf.conv3d(ddx as tf.Tensor5D, filter, placement.strides, placement.pad),
      filter: () => tf.engine().runKernel('Conv3DBackpropFilterV2', operands, attributes) as tf.Tensor,
    }
  },
}

const gradients: readonly tf.GradConfig[] = [
  averagePooling2D,
  averagePooling3D,
  cumulativeSum,
  mirrorPadding,
  ...comparisons,
  transposedConvolution3D,
]
