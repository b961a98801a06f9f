// SPDX-License-Identifier: Apache-2.0
/**
 * Three operations whose TensorFlow.js form costs several passes over memory where TensorFlow has one kernel: the gradient
 * of ReLU, batch normalisation in training (Ioffe and Szegedy 2015, algorithm 1) and softmax cross-entropy over class
 * numbers. Each is a kernel of our own with a gradient; what stands here computes it on TensorFlow.js's CPU backend,
 * `engine/lowerings/operations.ts` says which TensorFlow operation it becomes.
 */
import assert from 'node:assert/strict'
import * as tf from '@tensorflow/tfjs'

/** Rectified linear unit. Importing this module gives every `tf.relu`, also inside `tf.layers`, the one-pass gradient. */
export function relu<T extends tf.Tensor>(x: T): T {
  return tf.relu(x)
}

export interface NormalisedBatch {
  /** Like x. */
  readonly y: tf.Tensor
  /** [C], over all axes but the last. For moving averages: no gradient flows through it. */
  readonly mean: tf.Tensor1D
  /** [C], the population variance (divided by n, not n − 1), as y was normalised by. No gradient flows through it. */
  readonly variance: tf.Tensor1D
}

/** Normalises x [..., C] by its own mean and variance over all axes but the last, then scales and shifts each channel. */
export function batchNormTraining(
  x: tf.Tensor,
  scale: tf.Tensor1D,
  offset: tf.Tensor1D,
  epsilon: number,
): NormalisedBatch {
  const channels = x.shape.at(-1)
  assert(x.rank >= 2, `batchNormTraining: x must have a batch and a channel axis, got shape [${x.shape}]`)
  for (const tensor of [scale, offset])
    assert.deepEqual(tensor.shape, [channels], 'batchNormTraining: scale and offset')
  const [y, mean, variance] = runKernel<tf.Tensor[]>('CloisterBatchNorm', { x, scale, offset }, { epsilon })
  return { y: y!, mean: mean as tf.Tensor1D, variance: variance as tf.Tensor1D }
}

/** −log softmax(logits)[label] of each row: labels int32 [B], each in [0, C); logits [B, C]; result [B]. */
export function sparseSoftmaxCrossEntropy(labels: tf.Tensor1D, logits: tf.Tensor2D): tf.Tensor1D {
  assert.equal(labels.dtype, 'int32', 'sparseSoftmaxCrossEntropy: labels')
  assert.deepEqual(labels.shape, [logits.shape[0]], 'sparseSoftmaxCrossEntropy: one label for each row of logits')
  const [loss] = runKernel<tf.Tensor[]>('CloisterSparseSoftmaxCrossEntropy', { labels, logits })
  return loss as tf.Tensor1D
}

function runKernel<Result extends tf.Tensor | tf.Tensor[]>(
  kernelName: string,
  inputs: tf.NamedTensorMap,
  attributes: Record<string, number> = {},
): Result {
  return tf.engine().runKernel(kernelName, inputs, attributes) as Result
}

tf.registerGradient({
  kernelName: 'Relu',
  outputsToSave: [true],
  gradFunc: (dy, [y]) => ({ x: () => runKernel<tf.Tensor>('CloisterReluGrad', { dy: dy as tf.Tensor, y: y! }) }),
})

tf.registerGradient({
  kernelName: 'CloisterBatchNorm',
  inputsToSave: ['x', 'scale'],
  outputsToSave: [false, true, true],
  gradFunc: (dys, saved, attributes) => {
    const [dy] = dys as tf.Tensor[]
    const [x, scale, mean, variance] = saved
    // Not inside the functions below: TensorFlow.js tidies each one's other tensors away.
    const gradients = runKernel<tf.Tensor[]>(
      'CloisterBatchNormGrad',
      { dy: dy!, x: x!, scale: scale!, mean: mean!, variance: variance! },
      { epsilon: attributes.epsilon as number },
    )
    return { x: () => gradients[0]!, scale: () => gradients[1]!, offset: () => gradients[2]! }
  },
})

tf.registerGradient({
  kernelName: 'CloisterSparseSoftmaxCrossEntropy',
  outputsToSave: [false, true],
  gradFunc: (dys, [backprop]) => {
    const [dy] = dys as tf.Tensor[]
    return { logits: () => tf.mul(tf.expandDims(dy!, 1), backprop!) }
  },
})

// The CPU backend's kernels. Sums run in double precision: they are the reference that the engines are compared with.

function registerOnCpu(
  kernelName: string,
  kernel: (inputs: tf.NamedTensorMap, epsilon: number) => tf.Tensor | tf.Tensor[],
): void {
  tf.registerKernel({
    kernelName,
    backendName: 'cpu',
    kernelFunc: ({ inputs, attrs }) => kernel(inputs as tf.NamedTensorMap, Number(attrs?.epsilon)),
  })
}

registerOnCpu('CloisterReluGrad', ({ dy, y }) => {
  const values = Float32Array.from(dy!.dataSync())
  const activations = y!.dataSync()
  for (let i = 0; i < values.length; i++) if (!(activations[i]! > 0)) values[i] = 0
  return tf.tensor(values, y!.shape)
})

registerOnCpu('CloisterBatchNorm', ({ x, scale, offset }, epsilon) => {
  const [values, gamma, beta] = [x!.dataSync(), scale!.dataSync(), offset!.dataSync()]
  const channels = gamma.length
  const rows = values.length / channels
  const mean = new Float64Array(channels)
  for (let i = 0; i < values.length; i++) mean[i % channels]! += values[i]! / rows
  const variance = new Float64Array(channels)
  for (let i = 0; i < values.length; i++) variance[i % channels]! += (values[i]! - mean[i % channels]!) ** 2 / rows
  const y = values.map((value, i) => {
    const channel = i % channels
    return ((value - mean[channel]!) / Math.sqrt(variance[channel]! + epsilon)) * gamma[channel]! + beta[channel]!
  })
  return [
    tf.tensor(y, x!.shape),
    tf.tensor(Float32Array.from(mean), [channels]),
    tf.tensor(Float32Array.from(variance), [channels]),
  ]
})

registerOnCpu('CloisterBatchNormGrad', ({ dy, x, scale, mean, variance }, epsilon) => {
  const [gradient, values, gamma, mu] = [dy!.dataSync(), x!.dataSync(), scale!.dataSync(), mean!.dataSync()]
  const inverse = Array.from(variance!.dataSync(), (value) => 1 / Math.sqrt(value + epsilon))
  const channels = gamma.length
  const rows = values.length / channels
  const normalised = (i: number) => (values[i]! - mu[i % channels]!) * inverse[i % channels]!
  const scaleGradient = new Float64Array(channels)
  const offsetGradient = new Float64Array(channels)
  for (let i = 0; i < values.length; i++) {
    scaleGradient[i % channels]! += gradient[i]! * normalised(i)
    offsetGradient[i % channels]! += gradient[i]!
  }
  // The mean and the variance depend on every row: what their gradients take away is the projection on 1 and on x̂.
  const xGradient = gradient.map((g, i) => {
    const channel = i % channels
    const projection = (offsetGradient[channel]! + normalised(i) * scaleGradient[channel]!) / rows
    return gamma[channel]! * inverse[channel]! * (g - projection)
  })
  return [
    tf.tensor(xGradient, x!.shape),
    tf.tensor(Float32Array.from(scaleGradient), [channels]),
    tf.tensor(Float32Array.from(offsetGradient), [channels]),
  ]
})

registerOnCpu('CloisterSparseSoftmaxCrossEntropy', ({ labels, logits }) => {
  const [values, classOf] = [logits!.dataSync(), labels!.dataSync()]
  const classes = logits!.shape[1]!
  const loss = new Float32Array(classOf.length)
  const backprop = new Float32Array(values.length)
  for (const [row, label] of classOf.entries()) {
    assert(
      label >= 0 && label < classes,
      `sparseSoftmaxCrossEntropy: label ${label} of row ${row} not in [0, ${classes})`,
    )
    const rowValues = values.subarray(row * classes, (row + 1) * classes)
    let greatest = Number.NEGATIVE_INFINITY
    for (const value of rowValues) greatest = Math.max(greatest, value)
    let sum = 0
    for (const value of rowValues) sum += Math.exp(value - greatest)
    loss[row] = Math.log(sum) - (rowValues[label]! - greatest)
    for (let i = 0; i < classes; i++) {
      backprop[row * classes + i] = Math.exp(rowValues[i]! - greatest) / sum - (i === label ? 1 : 0)
    }
  }
  return [tf.tensor(loss, [classOf.length]), tf.tensor(backprop, logits!.shape)]
})
