// SPDX-License-Identifier: Apache-2.0
/**
 * Mends the gradient of average pooling. TensorFlow.js's forward kernels average what lies inside the input, its backward
 * kernels divide by the whole window, which is wrong where a window hangs over the edge. Scaling dy by the quotient of the
 * two makes the gradient that of the forward kernel. Importing this module is all there is to do.
 */
import * as tf from '@tensorflow/tfjs'

interface PoolAttributes {
  readonly filterSize: number | number[]
  readonly strides: number | number[]
  readonly pad: 'valid' | 'same' | number
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil'
}

/** How many elements of x each window covers: the sum over it of an image of ones. */
type Covered = (x: tf.Tensor, filter: number[], attributes: PoolAttributes) => tf.Tensor

function mend(kernelName: 'AvgPool' | 'AvgPool3D', covered: Covered): void {
  tf.registerGradient({
    kernelName,
    inputsToSave: ['x'],
    gradFunc: (dy, saved, attributes) => {
      const [x] = saved as [tf.Tensor]
      const pool = attributes as unknown as PoolAttributes
      const { filterSize } = pool
      const filter: number[] = typeof filterSize === 'number' ? Array(x.rank - 2).fill(filterSize) : filterSize
      const share = () => tf.div(tf.util.sizeFromShape(filter), covered(x, filter, pool))
      const scaled = () => (pool.pad === 'valid' ? (dy as tf.Tensor) : tf.mul(dy as tf.Tensor, share()))
      const inputs = () => ({ dy: scaled(), input: x })
      return { x: () => tf.engine().runKernel(`${kernelName}Grad`, inputs(), attributes) as tf.Tensor }
    },
  })
}

mend('AvgPool', (x, filter, { strides, pad, dimRoundingMode }) => {
  const image = tf.ones<tf.Rank.R4>([1, x.shape[1]!, x.shape[2]!, 1])
  const ones = tf.ones<tf.Rank.R4>([filter[0]!, filter[1]!, 1, 1])
  return tf.conv2d(image, ones, strides as [number, number], pad, 'NHWC', 1, dimRoundingMode)
})

mend('AvgPool3D', (x, filter, { strides, pad }) => {
  const image = tf.ones<tf.Rank.R5>([1, x.shape[1]!, x.shape[2]!, x.shape[3]!, 1])
  const ones = tf.ones<tf.Rank.R5>([filter[0]!, filter[1]!, filter[2]!, 1, 1])
  return tf.conv3d(image, ones, strides as [number, number, number], pad as 'same')
})
