/** Cases of pooling in two and three dimensions, also where several elements of a window are greatest. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Drawn, Sample } from './differential.ts'

type Pad = 'same' | 'valid' | number
type Pool2D = (x: tf.Tensor4D, size: [number, number], strides: [number, number], pad: Pad) => tf.Tensor

function pool2d(name: string, pool: Pool2D, rest: Partial<Case> & { ties?: boolean } = {}): Case {
  const { ties = false, ...options } = rest
  const sample = (s: Sample): Drawn => {
    // Where one-element windows happen to make as many windows as elements, TensorFlow.js forgets the strides.
    const size: [number, number] = [s.integer(1, 4), s.integer(2, 4)]
    const strides: [number, number] = [s.integer(1, 3), s.integer(1, 3)]
    const pad = s.pick<Pad>(['same', 'valid', s.integer(0, Math.min(...size) - 1)])
    const shape = [s.integer(1, 2), s.integer(4, 8), s.integer(4, 8), s.integer(1, 3)]
    return {
      inputs: [ties ? s.whole(shape, -1, 1) : s.floats(shape)],
      compute: (x) => pool(x as tf.Tensor4D, size, strides, pad),
    }
  }
  return { name, sample, gradient: true, ...options }
}

type Pool3D = (x: tf.Tensor5D, size: [number, number, number], stride: number, pad: 'same' | 'valid') => tf.Tensor

function pool3d(name: string, pool: Pool3D): Case {
  const sample = (s: Sample): Drawn => {
    // TensorFlow.js's backward kernel of maxPool3d confuses height and width of a window.
    const side = s.integer(1, 3)
    const size: [number, number, number] = [s.integer(1, 3), side, side]
    const [stride, pad] = [s.integer(1, 2), s.pick(['same', 'valid'] as const)]
    const shape = [s.integer(1, 2), ...s.shape(3, 3, 5), s.integer(1, 2)]
    return { inputs: [s.floats(shape)], compute: (x) => pool(x as tf.Tensor5D, size, stride, pad) }
  }
  return { name, sample, gradient: true }
}

/** The kernel's own rule at the edges, under the gradient that models/average-pooling.ts mends. */
function backwardKernel(kernelName: 'AvgPoolGrad' | 'AvgPool3DGrad', shape: number[], pad: Pad): Case {
  const compute = (dy: tf.Tensor, input: tf.Tensor) =>
    tf.engine().runKernel(kernelName, { dy, input }, { filterSize: 3, strides: 1, pad }) as tf.Tensor
  const sample = (s: Sample): Drawn => ({
    inputs: [s.floats(shape), s.floats(shape)],
    compute: compute as Drawn['compute'],
  })
  return { name: `${kernelName} padded by ${pad}`, sample }
}

export const pooling: readonly Case[] = [
  pool2d('maxPool', tf.maxPool),
  pool2d('maxPool at ties', tf.maxPool, { ties: true }),
  pool2d('avgPool', tf.avgPool),
  pool2d('maxPool windows rounded up', (x, size, strides) => tf.maxPool(x, size, strides, 0, 'ceil'), {
    gradient: false,
  }),
  pool2d('avgPool windows rounded up', (x, size, strides) => tf.avgPool(x, size, strides, 0, 'ceil'), {
    gradient: false,
  }),
  backwardKernel('AvgPoolGrad', [1, 4, 5, 2], 'same'),
  backwardKernel('AvgPoolGrad', [1, 4, 5, 2], 1),
  backwardKernel('AvgPool3DGrad', [1, 3, 4, 3, 1], 'same'),
  pool3d('maxPool3d', tf.maxPool3d),
  pool3d('avgPool3d', tf.avgPool3d),
]
