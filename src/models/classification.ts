// SPDX-License-Identifier: Apache-2.0
/** Softmax classification over class numbers: the batch's `labels`, int32, where −1 marks rows that pad the last batch. */
import * as tf from '@tensorflow/tfjs'
import { field, type Objective } from './layers-model.ts'
import { sparseSoftmaxCrossEntropy } from './operations.ts'

export const classification: Objective = {
  train(logits, batch) {
    const labels = field(batch, 'labels') as tf.Tensor1D
    const loss = tf.mean<tf.Scalar>(sparseSoftmaxCrossEntropy(labels, logits as tf.Tensor2D))
    return { loss, metrics: { accuracy: tf.mean<tf.Scalar>(tf.cast(hits(logits, labels), 'float32')) } }
  },

  predict: (logits) => ({ probabilities: tf.softmax(logits) }),

  evaluate(logits, batch) {
    const labels = field(batch, 'labels') as tf.Tensor1D
    const counts = tf.cast(tf.greaterEqual(labels, 0), 'float32')
    // Padding rows get some class so that the loss is defined, and then no weight.
    const someClass: tf.Tensor1D = tf.maximum(labels, tf.scalar(0, 'int32'))
    const losses = sparseSoftmaxCrossEntropy(someClass, logits as tf.Tensor2D)
    return {
      lossSum: tf.sum<tf.Scalar>(tf.mul(losses, counts)),
      correct: tf.sum<tf.Scalar>(tf.cast(hits(logits, labels), 'float32')),
      count: tf.sum<tf.Scalar>(counts),
    }
  },
}

/** Never true for a padding row: no class is −1. */
function hits(logits: tf.Tensor, labels: tf.Tensor): tf.Tensor {
  return tf.equal(tf.argMax(logits, 1), labels)
}
