/**
 * A softmax regression with an embedding table beside its dense tensors, small enough for unit tests on the JavaScript engine:
 * each example adds up two rows of the table. Batches are a function of (data shard, position), as the protocol asks.
 */
import * as tf from '@tensorflow/tfjs'
import type { Engine } from '../../src/engine/engine.ts'
import { type Manifest, manifestOf } from '../../src/federation/manifest.ts'
import { type Batch, Training, type TrainingOptions } from '../../src/federation/training.ts'
import { type Transfer, transferOf } from '../../src/models/bfloat16.ts'
import type { ModelTable } from '../../src/models/model.ts'
import { classes, features, linearBatch, linearManifest } from './linear-training.ts'

const width = classes
const idsPerExample = 2

/** More rows than any test touches, ids far apart, so that servers get unequal parts. */
export const table: ModelTable = { name: 'rows', width, rows: 1000, field: 'ids', initial: { scale: 0.25 } }

/** The linear model's tensors and one larger, so that every one of three servers has some. */
export const tableManifest: Manifest = manifestOf([
  ...linearManifest,
  { name: 'dense/scale', shape: [features], role: 'weight' as const },
])

export function tableValues(): Map<string, Float32Array> {
  return new Map(
    tableManifest.map(({ name, elements }, tensor) => [
      name,
      Float32Array.from({ length: elements }, (_, index) => Math.sin(1 + index + 10 * tensor) / 4),
    ]),
  )
}

export function tableBatch(first: number, batchSize: number, stride = 1): Batch {
  const ids = Int32Array.from({ length: batchSize * idsPerExample }, (_, at) => {
    const example = first + Math.floor(at / idsPerExample) * stride
    // The second id of an example repeats within a batch and between workers.
    return at % idsPerExample === 0 ? (example * 37) % table.rows : example % 5
  })
  return {
    ...linearBatch(first, batchSize, stride),
    ids: { shape: [batchSize, idsPerExample], dtype: 'int32', data: ids },
  }
}

function logits(
  inputs: Record<string, tf.Tensor>,
  rows: tf.Tensor,
  kernel: tf.Tensor,
  scale: tf.Tensor,
  bias: tf.Tensor,
) {
  const dense = tf.matMul(tf.mul(inputs.x!, scale) as tf.Tensor2D, kernel as tf.Tensor2D)
  return tf.add(tf.add(dense, bias), tf.sum(tf.gather(rows, inputs.ids!.toInt()), 1)) as tf.Tensor2D
}

function losses(labels: tf.Tensor, scores: tf.Tensor2D): tf.Tensor {
  return tf.neg(tf.sum(tf.mul(tf.oneHot(labels.toInt() as tf.Tensor1D, classes), tf.logSoftmax(scores)), 1))
}

function signature(batchSize: number, transfer: Transfer) {
  return {
    ...Object.fromEntries(
      tableManifest.map(({ name, role, shape }) => [name, { shape, dtype: transferOf(role, transfer) }]),
    ),
    x: { shape: [batchSize, features], dtype: 'float32' as const },
    y: { shape: [batchSize], dtype: 'int32' as const },
    ids: { shape: [batchSize, idsPerExample], dtype: 'int32' as const },
    'rows/rows': { shape: [batchSize * idsPerExample, width], dtype: transfer },
  }
}

function tableStep(engine: Engine, batchSize: number, transfer: Transfer): TrainingOptions['step'] {
  const trained = ['dense/kernel', 'dense/scale', 'dense/bias']
  const program = engine.compile({
    name: 'table-training',
    inputs: signature(batchSize, transfer),
    rounded: new Set(transfer === 'bfloat16' ? ['rows', ...trained] : []),
    build(inputs) {
      const { value, grads } = tf.valueAndGrads((...[rows, kernel, scale, bias]: tf.Tensor[]) =>
        tf.mean(losses(inputs.y!, logits(inputs, rows!, kernel!, scale!, bias!))),
      )([inputs['rows/rows']!, ...trained.map((name) => inputs[name]!)])
      const mean = tf.add(tf.mul(inputs['input/mean']!, 0.9), tf.mul(tf.mean(inputs.x!, 0), 0.1))
      const named = trained.map((name, index) => [name, grads[index + 1]!])
      return { loss: value, rows: grads[0]!, mean, ...Object.fromEntries(named) }
    },
  })
  return {
    async run(parameters, batch) {
      const outputs = await program.run({ ...Object.fromEntries(parameters), ...batch })
      return {
        loss: outputs.loss!.data[0]!,
        metrics: {},
        gradients: new Map(trained.map((name) => [name, outputs[name]!])),
        rowGradients: new Map([['rows', outputs.rows!]]),
        statistics: new Map([['input/mean', outputs.mean!]]),
        dispose() {
          for (const output of Object.values(outputs)) output.dispose()
        },
      }
    },
  }
}

/** Scores as the linear model's, and a histogram over the label. */
function tableEvaluation(engine: Engine, batchSize: number): TrainingOptions['evaluation'] {
  const program = engine.compile({
    name: 'table-evaluation',
    inputs: signature(batchSize, 'float32'),
    build(inputs) {
      const rows = inputs['rows/rows']!
      const scores = logits(inputs, rows, inputs['dense/kernel']!, inputs['dense/scale']!, inputs['dense/bias']!)
      const labels = tf.oneHot(inputs.y!.toInt() as tf.Tensor1D, classes)
      return { lossSum: tf.sum(losses(inputs.y!, scores)), count: tf.sum(labels), byLabel: tf.sum(labels, 0) }
    },
  })
  return {
    async run(parameters, batch) {
      const outputs = await program.run({ ...Object.fromEntries(parameters), ...batch })
      const { lossSum, count, byLabel } = outputs
      return { lossSum: lossSum!.data[0]!, count: count!.data[0]!, byLabel: Float64Array.from(byLabel!.data) }
    },
  }
}

/** `parties` data shards; batch n of shard s holds the examples n·b·parties + s, + s + parties, …: disjoint. */
export function tableTraining(
  engine: Engine,
  party: number,
  parties: number,
  batchSize: number,
  transfer: Transfer = 'float32',
): Training {
  return new Training({
    manifest: tableManifest,
    tables: [table],
    step: tableStep(engine, batchSize, transfer),
    evaluation: tableEvaluation(engine, batchSize),
    batch: async ({ shard, position }) => tableBatch(position * batchSize * parties + shard, batchSize, parties),
    heldOut: async function* () {
      for (let batch = 0; batch < 2; batch++) {
        yield tableBatch(100_000 + batch * batchSize * parties + party, batchSize, parties)
      }
    },
    seed: (shard) => shard,
  })
}
