/** Cases of resizing, cropping and rearranging of images. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Drawn, Sample } from './differential.ts'

type Resize = (x: tf.Tensor4D, size: [number, number], alignCorners: boolean, halfPixelCenters: boolean) => tf.Tensor

/** [align corners, half-pixel centres]: both at once are refused by TensorFlow.js. */
const alignments = [
  [false, false],
  [true, false],
  [false, true],
] as const

function resizing(name: string, resize: Resize): Case {
  const sample = (s: Sample): Drawn => {
    const [size, [align, half]] = [s.shape(2, 1, 9) as [number, number], s.pick(alignments)]
    const shape = [s.integer(1, 2), s.integer(2, 5), s.integer(2, 5), 2]
    return { inputs: [s.floats(shape)], compute: (x) => resize(x as tf.Tensor4D, size, align, half) }
  }
  return { name, sample, gradient: true }
}

function cropping(method: 'bilinear' | 'nearest'): Case {
  return {
    name: `cropAndResize, ${method}`,
    sample: (s) => ({
      inputs: [s.floats([2, 5, 6, 2]), s.floats([3, 4], -0.2, 1.2), s.integers([3], 0, 1)],
      compute: (x, boxes, owners) =>
        tf.image.cropAndResize(x as tf.Tensor4D, boxes as tf.Tensor2D, owners as tf.Tensor1D, [3, 4], method, 0.3),
    }),
  }
}

export const images: readonly Case[] = [
  resizing('resizeBilinear', tf.image.resizeBilinear),
  resizing('resizeNearestNeighbor', tf.image.resizeNearestNeighbor),
  cropping('bilinear'),
  cropping('nearest'),
  {
    name: 'depthToSpace',
    sample: (s) => ({ inputs: [s.floats([2, 3, 2, 8])], compute: (x) => tf.depthToSpace(x as tf.Tensor4D, 2, 'NHWC') }),
  },
]
