// SPDX-License-Identifier: Apache-2.0
/**
 * Two more operations with kernels and gradients of our own (the others: operations.ts). The pairwise interaction of DLRM
 * (Naumov et al. 2019, section 2.1.3), whose gradient TensorFlow would make of a scatter, several times slower than the
 * forward pass; and cross-entropy of a click, on the logit. What stands here computes them on TensorFlow.js's CPU backend,
 * `engine/lowerings/operations.ts` says which TensorFlow operations they become.
 */
import assert from 'node:assert/strict'
import * as tf from '@tensorflow/tfjs'

/**
 * Dot products of each example's n vectors with one another, without those of a vector with itself: x [B, n, d] to
 * [B, n (n − 1) / 2], in the order (1, 0), (2, 0), (2, 1), (3, 0), …
 */
export function pairwiseDots(x: tf.Tensor3D): tf.Tensor2D {
  assert(x.rank === 3 && x.shape[1] > 1, `pairwiseDots: expected [batch, at least 2, width], got [${x.shape}]`)
  return tf.engine().runKernel('CloisterPairwiseDots', { x }) as tf.Tensor2D
}

/** Which two of n vectors each pair is of, in that order. */
export function pairIndices(count: number): { readonly left: readonly number[]; readonly right: readonly number[] } {
  const left: number[] = []
  const right: number[] = []
  for (let i = 1; i < count; i++) {
    for (let j = 0; j < i; j++) {
      left.push(i)
      right.push(j)
    }
  }
  return { left, right }
}

/** −log σ(logit) where the label is 1, −log (1 − σ(logit)) where it is 0: exact for large logits too. */
export function sigmoidCrossEntropy(labels: tf.Tensor, logits: tf.Tensor): tf.Tensor {
  assert.deepEqual(labels.shape, logits.shape, 'sigmoidCrossEntropy: one label for each logit')
  return tf.engine().runKernel('CloisterSigmoidCrossEntropy', { labels, logits }) as tf.Tensor
}

tf.registerGradient({
  kernelName: 'CloisterPairwiseDots',
  inputsToSave: ['x'],
  gradFunc: (dy, [x]) => ({
    x: () => tf.engine().runKernel('CloisterPairwiseDotsGrad', { dy: dy as tf.Tensor, x: x! }) as tf.Tensor,
  }),
})

tf.registerGradient({
  kernelName: 'CloisterSigmoidCrossEntropy',
  inputsToSave: ['labels', 'logits'],
  gradFunc: (dy, [labels, logits]) => ({
    labels: () => tf.mul(dy as tf.Tensor, tf.neg(logits!)),
    logits: () => tf.mul(dy as tf.Tensor, tf.sub(tf.sigmoid(logits!), labels!)),
  }),
})

// The CPU backend's kernels. Sums run in double precision: they are the reference that the engines are compared with.

function registerOnCpu(kernelName: string, kernel: (inputs: tf.NamedTensorMap) => tf.Tensor): void {
  tf.registerKernel({
    kernelName,
    backendName: 'cpu',
    kernelFunc: ({ inputs }) => kernel(inputs as tf.NamedTensorMap),
  })
}

registerOnCpu('CloisterPairwiseDots', ({ x }) => {
  const values = x!.dataSync()
  const [batch, count, width] = x!.shape as [number, number, number]
  const { left, right } = pairIndices(count)
  const dots = new Float32Array(batch * left.length)
  for (let example = 0; example < batch; example++) {
    for (let pair = 0; pair < left.length; pair++) {
      const a = (example * count + left[pair]!) * width
      const b = (example * count + right[pair]!) * width
      let sum = 0
      for (let i = 0; i < width; i++) sum += values[a + i]! * values[b + i]!
      dots[example * left.length + pair] = sum
    }
  }
  return tf.tensor(dots, [batch, left.length])
})

registerOnCpu('CloisterPairwiseDotsGrad', ({ dy, x }) => {
  const [gradient, values] = [dy!.dataSync(), x!.dataSync()]
  const [batch, count, width] = x!.shape as [number, number, number]
  const { left, right } = pairIndices(count)
  const sums = new Float64Array(values.length)
  for (let example = 0; example < batch; example++) {
    for (let pair = 0; pair < left.length; pair++) {
      const g = gradient[example * left.length + pair]!
      const a = (example * count + left[pair]!) * width
      const b = (example * count + right[pair]!) * width
      for (let i = 0; i < width; i++) {
        sums[a + i]! += g * values[b + i]!
        sums[b + i]! += g * values[a + i]!
      }
    }
  }
  return tf.tensor(Float32Array.from(sums), x!.shape)
})

registerOnCpu('CloisterSigmoidCrossEntropy', ({ labels, logits }) => {
  const targets = labels!.dataSync()
  const losses = Float32Array.from(
    logits!.dataSync(),
    (x, i) => Math.max(x, 0) - x * targets[i]! + Math.log1p(Math.exp(-Math.abs(x))),
  )
  return tf.tensor(losses, logits!.shape)
})
