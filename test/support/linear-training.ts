/**
 * A softmax regression as the federation sees a model, small enough for unit tests on the JavaScript engine: one tensor of
 * each role, gradients by TensorFlow.js, data that is a function of a seed.
 */
import * as tf from '@tensorflow/tfjs'
import type { Engine, HostTensor } from '../../src/engine/engine.ts'
import { type Manifest, manifestOf } from '../../src/federation/manifest.ts'
import type { Batch, TrainingOptions } from '../../src/federation/training.ts'

export const features = 4
export const classes = 3

export const linearManifest: Manifest = manifestOf([
  { name: 'input/mean', shape: [features], role: 'statistic' },
  { name: 'dense/bias', shape: [classes], role: 'unregularised' },
  { name: 'dense/kernel', shape: [features, classes], role: 'weight' },
])

/** Not all equal, so that a mix-up of tensors or elements shows. */
export function linearValues(): Map<string, Float32Array> {
  return new Map(
    linearManifest.map(({ name, elements }, tensor) => [
      name,
      Float32Array.from({ length: elements }, (_, index) => Math.sin(1 + index + 10 * tensor) / 4),
    ]),
  )
}

const parameterSignature = Object.fromEntries(
  linearManifest.map(({ name, shape }) => [name, { shape, dtype: 'float32' as const }]),
)

function batchSignature(batchSize: number) {
  return {
    x: { shape: [batchSize, features], dtype: 'float32' as const },
    y: { shape: [batchSize], dtype: 'int32' as const },
  }
}

function logits(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor): tf.Tensor2D {
  return tf.add(tf.matMul(x as tf.Tensor2D, kernel as tf.Tensor2D), bias)
}

function losses(labels: tf.Tensor, scores: tf.Tensor2D): tf.Tensor {
  return tf.neg(tf.sum(tf.mul(tf.oneHot(labels.toInt(), classes), tf.logSoftmax(scores)), 1))
}

export function linearStep(
  engine: Engine,
  batchSize: number,
): TrainingOptions['step'] & { readonly seeds: (readonly number[])[] } {
  const program = engine.compile({
    name: 'linear-training',
    inputs: { ...parameterSignature, ...batchSignature(batchSize) },
    build(inputs) {
      const { x, y } = inputs as { x: tf.Tensor; y: tf.Tensor }
      const gradients = tf.valueAndGrads((kernel: tf.Tensor, bias: tf.Tensor) =>
        tf.mean(losses(y, logits(x, kernel, bias))),
      )([inputs['dense/kernel']!, inputs['dense/bias']!])
      const mean = tf.add(tf.mul(inputs['input/mean']!, 0.9), tf.mul(tf.mean(x, 0), 0.1))
      return { loss: gradients.value, 'dense/kernel': gradients.grads[0]!, 'dense/bias': gradients.grads[1]!, mean }
    },
  })
  const seeds: (readonly number[])[] = []
  return {
    seeds,
    async run(parameters, batch, seed) {
      seeds.push(seed)
      const outputs = await program.run({ ...Object.fromEntries(parameters), ...batch })
      return {
        loss: outputs.loss!.data[0]!,
        metrics: {},
        gradients: new Map([
          ['dense/kernel', outputs['dense/kernel']!],
          ['dense/bias', outputs['dense/bias']!],
        ]),
        rowGradients: new Map(),
        statistics: new Map([['input/mean', outputs.mean!]]),
        dispose() {
          for (const output of Object.values(outputs)) output.dispose()
        },
      }
    },
  }
}

export function linearEvaluation(engine: Engine, batchSize: number): TrainingOptions['evaluation'] {
  const program = engine.compile({
    name: 'linear-evaluation',
    inputs: { ...parameterSignature, ...batchSignature(batchSize) },
    build(inputs) {
      const { x, y } = inputs as { x: tf.Tensor; y: tf.Tensor }
      const scores = logits(x, inputs['dense/kernel']!, inputs['dense/bias']!)
      const hit = tf.cast(tf.equal(tf.argMax(scores, 1), y), 'float32')
      return { lossSum: tf.sum(losses(y, scores)), correct: tf.sum(hit), count: tf.sum(tf.onesLike(hit)) }
    },
  })
  return {
    async run(parameters, batch) {
      const outputs = await program.run({ ...Object.fromEntries(parameters), ...batch })
      return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data[0]!]))
    },
  }
}

/** Example `index` of a separable data set. */
function example(index: number): { x: number[]; label: number } {
  const label = index % classes
  const x = Array.from(
    { length: features },
    (_, feature) => (feature === label ? 1 : 0) + Math.sin(index * 7.3 + feature),
  )
  return { x, label }
}

/** Rows first, first+stride, … as one batch. */
export function linearBatch(first: number, batchSize: number, stride = 1): Batch {
  const rows = Array.from({ length: batchSize }, (_, row) => example(first + row * stride))
  const x: HostTensor = {
    shape: [batchSize, features],
    dtype: 'float32',
    data: Float32Array.from(rows.flatMap((row) => row.x)),
  }
  const y: HostTensor = { shape: [batchSize], dtype: 'int32', data: Int32Array.from(rows, ({ label }) => label) }
  return { x, y }
}

/** Batch n of data shard s out of `shards` holds the examples n·b·shards + s, + s + shards, …: disjoint. */
export function linearBatches(batchSize: number, shards = 1): TrainingOptions['batch'] {
  return async ({ shard, position }) => linearBatch(position * batchSize * shards + shard, batchSize, shards)
}

export async function* linearHeldOut(batchSize: number, party = 0, parties = 1): AsyncGenerator<Batch> {
  for (let batch = 0; batch < 2; batch++) {
    yield linearBatch(100_000 + batch * batchSize * parties + party, batchSize, parties)
  }
}
