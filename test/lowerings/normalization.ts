/** Cases of normalisation by given statistics and over neighbouring channels. TensorFlow.js differentiates it with a scale only. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Drawn, Sample } from './differential.ts'

function batchNorm(
  name: string,
  rank: 2 | 3 | 4,
  affine: 'both' | 'scale' | 'offset' | 'neither',
  rest: Partial<Case>,
): Case {
  const sample = (s: Sample): Drawn => {
    const shape = s.shape(rank, 2, 5)
    const each = () => s.floats([shape.at(-1)!])
    return {
      inputs: [s.floats(shape), each(), s.floats([shape.at(-1)!], 0.2, 2), each(), each()],
      compute: (x, mean, variance, scale, offset) =>
        tf.batchNorm(
          x!,
          mean as tf.Tensor1D,
          variance as tf.Tensor1D,
          affine === 'scale' || affine === 'neither' ? undefined : (offset as tf.Tensor1D),
          affine === 'offset' || affine === 'neither' ? undefined : (scale as tf.Tensor1D),
          0.01,
        ),
    }
  }
  return { name, sample, ...rest }
}

/** Statistics that differ from place to place. */
const spread: Case = {
  name: 'batchNorm by statistics of each element',
  gradient: true,
  sample: (s) => {
    const shape = s.shape(4, 2, 4)
    return {
      inputs: [s.floats(shape), s.floats(shape), s.floats(shape, 0.2, 2), s.floats(shape), s.floats(shape)],
      compute: (x, mean, variance, scale, offset) => tf.batchNorm(x!, mean!, variance!, offset, scale, 0.01),
    }
  },
}

const localResponse: Case = {
  name: 'localResponseNormalization',
  gradient: true,
  tolerance: 1e-4,
  sample: (s) => {
    const radius = s.integer(1, 3)
    return {
      inputs: [s.floats([...s.shape(3, 1, 3), s.integer(1, 6)])],
      compute: (x) => tf.localResponseNormalization(x as tf.Tensor4D, radius, 1.2, 0.7, 0.6),
    }
  },
}

export const normalization: readonly Case[] = [
  batchNorm('batchNorm of images', 4, 'both', { gradient: true, tolerance: 1e-4 }),
  batchNorm('batchNorm of images without offset', 4, 'scale', {}),
  batchNorm('batchNorm of images without scale', 4, 'offset', {}),
  batchNorm('batchNorm of images without either', 4, 'neither', {}),
  batchNorm('batchNorm of rows', 2, 'both', { gradient: true, tolerance: 1e-4 }),
  batchNorm('batchNorm of sequences', 3, 'both', { tolerance: 1e-4 }),
  spread,
  localResponse,
]
