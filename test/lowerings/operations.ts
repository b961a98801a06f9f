/** Cases of our own kernels. */
import type * as tf from '@tensorflow/tfjs'
import { createRandom } from '../../src/engine/random.ts'
import { pairwiseDots, sigmoidCrossEntropy } from '../../src/models/interaction.ts'
import { batchNormTraining, relu, sparseSoftmaxCrossEntropy } from '../../src/models/operations.ts'
import type { Case, Drawn, Sample } from './differential.ts'

function batchNorm(rank: number): Case {
  const sample = (s: Sample): Drawn => {
    const shape = [s.integer(3, 6), ...s.shape(rank - 1, 1, 5)]
    const each = () => s.floats([shape.at(-1)!])
    return {
      inputs: [s.floats(shape), each(), each()],
      // Normalisation, then ReLU: what TensorFlow's optimizer might fuse.
      compute: (x, scale, offset) => {
        const { y } = batchNormTraining(x!, scale as tf.Tensor1D, offset as tf.Tensor1D, 0.1)
        return relu(y)
      },
    }
  }
  return { name: `batchNormTraining of rank ${rank}`, sample, gradient: true, tolerance: 1e-4 }
}

const statistics: Case = {
  name: 'statistics of batchNormTraining',
  sample: (s) => ({
    inputs: [s.floats([3, 4, 5, 3], -1, 4), s.floats([3]), s.floats([3])],
    compute: (x, scale, offset) => {
      const { mean, variance } = batchNormTraining(x!, scale as tf.Tensor1D, offset as tf.Tensor1D, 0.1)
      return [mean, variance]
    },
  }),
}

const crossEntropy: Case = {
  name: 'sparseSoftmaxCrossEntropy',
  gradient: true,
  sample: (s) => {
    const [batch, classes] = [s.integer(1, 5), s.integer(2, 7)]
    return {
      inputs: [s.integers([batch], 0, classes - 1), s.floats([batch, classes], -9, 9)],
      compute: (labels, logits) => sparseSoftmaxCrossEntropy(labels as tf.Tensor1D, logits as tf.Tensor2D),
    }
  },
}

const pairwise: Case = {
  name: 'pairwiseDots',
  gradient: true,
  sample: (s) => ({
    inputs: [s.floats([s.integer(1, 4), s.integer(2, 7), s.integer(1, 5)])],
    compute: (x) => pairwiseDots(x as tf.Tensor3D),
  }),
}

const clickEntropy: Case = {
  name: 'sigmoidCrossEntropy',
  gradient: true,
  sample: (s) => {
    const shape = s.shape(2, 1, 7)
    const compute = (labels?: tf.Tensor, logits?: tf.Tensor) => sigmoidCrossEntropy(labels!, logits!)
    return { inputs: [s.floats(shape, 0, 1), s.floats(shape, -90, 90)], compute }
  },
}

const random: Case = {
  name: 'random numbers',
  tolerance: 1e-6,
  sample: (s) => {
    const shape = s.shape(s.integer(0, 3), 1, 7)
    return {
      inputs: [s.integers([2], -(2 ** 31), 2 ** 31 - 1)],
      compute: (seed) => {
        const { uniform, normal } = createRandom(seed as tf.Tensor1D)
        return [uniform(shape), uniform(shape, -3, 5), normal(shape), normal(shape, 1, 0.5)]
      },
    }
  },
}

export const operations: readonly Case[] = [
  batchNorm(4),
  batchNorm(2),
  batchNorm(3),
  statistics,
  crossEntropy,
  pairwise,
  clickEntropy,
  random,
]
