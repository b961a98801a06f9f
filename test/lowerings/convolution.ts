/** Cases of convolutions: shapes, strides, dilations, every way of padding, both data formats, forward and backward. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Drawn, Sample } from './differential.ts'
import { type FusedActivation, withActivations } from './matrices.ts'

const differentiable = { gradient: true, tolerance: 1e-4 }

interface Geometry {
  readonly x: { batch: number; channels: number; height: number; width: number }
  readonly filter: [height: number, width: number]
  readonly filters: number
  readonly strides: [number, number]
  readonly pad: 'same' | 'valid' | number
}

/** Padding by a number less than the filter, so that no window lies in the padding alone. */
function geometry(s: Sample): Geometry {
  const filter: [number, number] = [s.integer(1, 4), s.integer(1, 4)]
  return {
    x: { batch: s.integer(1, 2), channels: s.integer(1, 4), height: s.integer(4, 8), width: s.integer(4, 8) },
    filter,
    filters: s.integer(1, 4),
    strides: [s.integer(1, 3), s.integer(1, 3)],
    pad: s.pick(['same', 'valid', s.integer(0, Math.min(...filter) - 1)]),
  }
}

function images(s: Sample, { batch, channels, height, width }: Geometry['x'], format: 'NHWC' | 'NCHW' = 'NHWC') {
  return s.floats(format === 'NHWC' ? [batch, height, width, channels] : [batch, channels, height, width])
}

function conv2d(name: string, format: 'NHWC' | 'NCHW'): Case {
  const sample = (s: Sample): Drawn => {
    const { x, filter, filters, strides, pad } = geometry(s)
    return {
      inputs: [images(s, x, format), s.floats([...filter, x.channels, filters])],
      compute: (x, filter) => tf.conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, strides, pad, format),
    }
  }
  return { name, sample, ...differentiable }
}

/** TensorFlow.js does not differentiate these. */
const dilatedConv2d: Case = {
  name: 'conv2d dilated',
  tolerance: 1e-4,
  sample: (s) => {
    const { x, filter, filters } = geometry(s)
    const [dilations, pad] = [
      s.pick<[number, number]>([
        [2, 2],
        [1, 3],
        [3, 2],
      ]),
      s.pick(['same', 'valid'] as const),
    ]
    return {
      inputs: [images(s, { ...x, height: 12, width: 13 }), s.floats([...filter, x.channels, filters])],
      compute: (x, filter) => tf.conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, 1, pad, 'NHWC', dilations),
    }
  },
}

/** Sides padded differently. */
const explicitConv2d: Case = {
  name: 'conv2d padded by sides',
  tolerance: 1e-4,
  gradient: true,
  sample: (s) => {
    const { x, filters, strides } = geometry(s)
    const pad: [number, number][] = [
      [0, 0],
      [s.integer(0, 2), s.integer(0, 2)],
      [s.integer(0, 2), s.integer(0, 2)],
      [0, 0],
    ]
    return {
      inputs: [images(s, x), s.floats([3, 3, x.channels, filters])],
      compute: (x, filter) => tf.conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, strides, pad as never),
    }
  },
}

/** The number of windows rounded down, to nearest, up. The backward kernels of TensorFlow.js know rounding down only. */
function roundedConv2d(rounding: 'floor' | 'round' | 'ceil'): Case {
  return {
    name: `conv2d windows rounded by ${rounding}`,
    tolerance: 1e-4,
    gradient: rounding === 'floor',
    sample: (s) => {
      const { x, filters, strides } = geometry(s)
      const pad = s.integer(0, 2)
      return {
        inputs: [images(s, x), s.floats([3, 3, x.channels, filters])],
        compute: (x, filter) => tf.conv2d(x as tf.Tensor4D, filter as tf.Tensor4D, strides, pad, 'NHWC', 1, rounding),
      }
    },
  }
}

const conv2dTranspose: Case = {
  name: 'conv2dTranspose',
  ...differentiable,
  sample: (s) => {
    const { x, filter, filters, strides } = geometry(s)
    const pad = s.pick(['same', 'valid'] as const)
    const grown = (size: number, axis: 0 | 1) =>
      pad === 'same' ? size * strides[axis] : (size - 1) * strides[axis] + filter[axis]
    const shape: [number, number, number, number] = [x.batch, grown(x.height, 0), grown(x.width, 1), filters]
    return {
      inputs: [images(s, x), s.floats([...filter, filters, x.channels])],
      compute: (x, filter) => tf.conv2dTranspose(x as tf.Tensor4D, filter as tf.Tensor4D, shape, strides, pad),
    }
  },
}

const conv1d: Case = {
  name: 'conv1d',
  ...differentiable,
  sample: (s) => {
    const { x, filter, filters, strides, pad } = geometry(s)
    return {
      inputs: [s.floats([x.batch, x.height, x.channels]), s.floats([filter[0], x.channels, filters])],
      compute: (x, filter) =>
        tf.conv1d(x as tf.Tensor3D, filter as tf.Tensor3D, strides[0], typeof pad === 'number' ? 'same' : pad),
    }
  },
}

function depthwise(name: string, rest: Partial<Case>, dilations?: [number, number]): Case {
  const sample = (s: Sample): Drawn => {
    const { x, filter, strides, pad } = geometry(s)
    const larger = { ...x, height: 12, width: 13 }
    const stride = dilations === undefined ? strides[0] : 1
    return {
      inputs: [images(s, larger), s.floats([...filter, x.channels, s.integer(1, 3)])],
      compute: (x, filter) =>
        tf.depthwiseConv2d(x as tf.Tensor4D, filter as tf.Tensor4D, stride, pad, 'NHWC', dilations ?? 1),
    }
  }
  return { name, sample, tolerance: 1e-4, ...rest }
}

const separable: Case = {
  name: 'separableConv2d',
  ...differentiable,
  sample: (s) => {
    const { x, filter, filters, strides, pad } = geometry(s)
    const named = typeof pad === 'number' ? 'same' : pad
    return {
      inputs: [images(s, x), s.floats([...filter, x.channels, 2]), s.floats([1, 1, 2 * x.channels, filters])],
      compute: (x, deep, pointwise) =>
        tf.separableConv2d(x as tf.Tensor4D, deep as tf.Tensor4D, pointwise as tf.Tensor4D, strides[0], named),
    }
  },
}

function fused(kind: 'conv2d' | 'depthwiseConv2d') {
  return (activation: FusedActivation): Omit<Case, 'name'> => ({
    ...differentiable,
    sample: (s) => {
      const { x, filter, filters, strides, pad } = geometry(s)
      const outputs = kind === 'conv2d' ? filters : x.channels * filters
      const vectors = activation === 'prelu' ? [s.floats([outputs]), s.floats([outputs])] : [s.floats([outputs])]
      return {
        inputs: [images(s, x), s.floats([...filter, x.channels, filters]), ...vectors],
        compute: (x, filter, bias, preluActivationWeights) =>
          tf.fused[kind]({
            x: x as tf.Tensor4D,
            filter: filter as tf.Tensor4D,
            strides: strides[0],
            pad,
            bias: bias!,
            activation,
            leakyreluAlpha: 0.3,
            ...(preluActivationWeights && { preluActivationWeights }),
          }),
      }
    },
  })
}

const conv3d: Case = {
  name: 'conv3d',
  ...differentiable,
  sample: (s) => {
    const [channels, filters] = [s.integer(1, 3), s.integer(1, 3)]
    const [stride, pad] = [s.integer(1, 2), s.pick(['same', 'valid'] as const)]
    return {
      inputs: [
        s.floats([s.integer(1, 2), ...s.shape(3, 3, 5), channels]),
        s.floats([...s.shape(3, 1, 3), channels, filters]),
      ],
      compute: (x, filter) => tf.conv3d(x as tf.Tensor5D, filter as tf.Tensor5D, stride, pad),
    }
  },
}

const conv3dTranspose: Case = {
  name: 'conv3dTranspose',
  ...differentiable,
  sample: (s) => {
    const [channels, filters, stride] = [s.integer(1, 3), s.integer(1, 3), s.integer(1, 2)]
    const [size, filter] = [s.shape(3, 2, 3), s.shape(3, 2, 3)]
    const shape = [1, ...size.map((n) => n * stride), filters] as [number, number, number, number, number]
    return {
      inputs: [s.floats([1, ...size, channels]), s.floats([...filter, filters, channels])],
      compute: (x, filter) => tf.conv3dTranspose(x as tf.Tensor5D, filter as tf.Tensor5D, shape, stride, 'same'),
    }
  },
}

export const convolution: readonly Case[] = [
  conv2d('conv2d', 'NHWC'),
  conv2d('conv2d with channels first', 'NCHW'),
  dilatedConv2d,
  explicitConv2d,
  roundedConv2d('floor'),
  roundedConv2d('round'),
  roundedConv2d('ceil'),
  conv2dTranspose,
  conv1d,
  depthwise('depthwiseConv2d', { gradient: true }),
  depthwise('depthwiseConv2d dilated', {}, [2, 3]),
  separable,
  ...withActivations('fused conv2d', fused('conv2d')),
  ...withActivations('fused depthwiseConv2d', fused('depthwiseConv2d')),
  conv3d,
  conv3dTranspose,
]
