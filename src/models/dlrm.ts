// SPDX-License-Identifier: Apache-2.0
/**
 * DLRM (Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems", 2019): dense
 * features through the bottom MLP, categories through embeddings, all dot products of two different vectors among them, and
 * those with the bottom's output through the top MLP to the logit of a click. All columns share one table, each with a range
 * of row ids of its own. The loss is that of the logit. Initial values as in the paper's code.
 *
 * A batch: `dense` float32, `ids` int32 (row ids), `labels` int32: 1 click, 0 none, −1 a row that pads the last batch.
 */
import assert from 'node:assert/strict'
import * as tf from '@tensorflow/tfjs'
import { pairwiseDots, sigmoidCrossEntropy } from './interaction.ts'
import { field } from './layers-model.ts'
import type { Model, ModelVariable } from './model.ts'
import { relu } from './operations.ts'
import { RandomStream } from './philox.ts'

export interface DlrmOptions {
  /** Numbers of features. */
  readonly dense?: number
  readonly categorical?: number
  /** Of the table of embeddings: more than any id. */
  readonly rows: number
  readonly embeddingWidth?: number
  /** Widths of the hidden layers of the bottom MLP; its last layer has the width of an embedding. */
  readonly bottom?: readonly number[]
  /** Widths of the hidden layers of the top MLP; its last layer has one output. */
  readonly top?: readonly number[]
  /** Embeddings start uniform in ±this. */
  readonly embeddingScale?: number
}

export const embeddingTable = 'embeddings'

/**
 * Bins of the histograms of logits that AUC is computed from: of equal width over ±range, the outermost taking what lies
 * beyond. Two logits are taken for equal only when they are nearer than the width, 1/256: probabilities that differ by less
 * than 0.001.
 */
export const logitBins = { count: 4096, range: 8 } as const

export function dlrm(options: DlrmOptions): Model {
  const { dense = 13, categorical = 26, rows, embeddingWidth = 16, embeddingScale = 0.05 } = options
  const { bottom = [512, 256, 64], top = [512, 256] } = options
  const vectors = categorical + 1
  const bottomLayers = layers('bottom', [dense, ...bottom, embeddingWidth])
  const topLayers = layers('top', [embeddingWidth + (vectors * (vectors - 1)) / 2, ...top, 1])

  /** [B]. */
  function logits(batch: tf.NamedTensorMap): tf.Tensor1D {
    const x = perceptron(bottomLayers, field(batch, 'dense') as tf.Tensor2D, 'all')
    const embeddings = tf.gather(field(batch, `rows/${embeddingTable}`), field(batch, 'ids'))
    const interactions = pairwiseDots(tf.concat3d([tf.expandDims(x, 1), embeddings as tf.Tensor3D], 1))
    return tf.reshape(perceptron(topLayers, tf.concat2d([x, interactions], 1), 'hidden'), [-1])
  }

  return {
    name: 'dlrm',
    variables: [...bottomLayers, ...topLayers].flatMap(({ kernel, bias }) => [kernel, bias]),
    tables: [{ name: embeddingTable, width: embeddingWidth, rows, field: 'ids', initial: { scale: embeddingScale } }],
    batch: {
      dense: { shape: [dense], dtype: 'float32' },
      ids: { shape: [categorical], dtype: 'int32' },
      labels: { shape: [], dtype: 'int32' },
    },
    train(batch) {
      const labels = tf.cast(field(batch, 'labels'), 'float32')
      return { loss: tf.mean<tf.Scalar>(sigmoidCrossEntropy(labels, logits(batch))), metrics: {} }
    },
    evaluate: (batch) => scores(logits(batch), field(batch, 'labels') as tf.Tensor1D),
    predict: (batch) => ({ probability: tf.sigmoid(logits(batch)) }),
    initialValues: (seed) => new Map([...bottomLayers, ...topLayers].flatMap((layer) => drawLayer(layer, seed))),
  }
}

interface Layer {
  readonly kernel: ModelVariable
  readonly bias: ModelVariable
}

function layers(name: string, widths: readonly number[]): Layer[] {
  for (const width of widths) assert(Number.isInteger(width) && width > 0, `${name}: a layer of width ${width}`)
  return widths.slice(1).map((outputs, index) => ({
    kernel: variable(`${name}/${index}/kernel`, [widths[index]!, outputs], 'weight'),
    bias: variable(`${name}/${index}/bias`, [outputs], 'unregularised'),
  }))
}

function variable(name: string, shape: readonly number[], role: ModelVariable['role']): ModelVariable {
  return { name, shape, role, tensor: tf.tidy(() => tf.variable(tf.zeros([...shape]))) }
}

/** Product, bias and ReLU as TensorFlow's optimizer fuses them. */
function perceptron(layers: readonly Layer[], x: tf.Tensor2D, activated: 'all' | 'hidden'): tf.Tensor2D {
  return layers.reduce((input, { kernel, bias }, index) => {
    const sum = tf.fused.matMul({ a: input, b: kernel.tensor, bias: bias.tensor }) as tf.Tensor2D
    return activated === 'all' || index + 1 < layers.length ? relu(sum) : sum
  }, x)
}

/** Normal, of variance 2 / (inputs + outputs) for kernels and 1 / outputs for biases. */
function drawLayer({ kernel, bias }: Layer, seed: number): [string, Float32Array][] {
  const [inputs, outputs] = kernel.shape as [number, number]
  const draw = ({ name }: ModelVariable, elements: number, deviation: number): [string, Float32Array] => {
    const random = new RandomStream(seed, name)
    return [name, Float32Array.from({ length: elements }, () => deviation * random.normal())]
  }
  return [
    draw(kernel, inputs * outputs, Math.sqrt(2 / (inputs + outputs))),
    draw(bias, outputs, Math.sqrt(1 / outputs)),
  ]
}

/**
 * What log loss, accuracy, calibration and AUC are computed from: sums, and the logits of clicks and of the others counted
 * by bins. Rows that pad the batch have weight 0.
 */
function scores(logits: tf.Tensor1D, labels: tf.Tensor1D): Record<string, tf.Scalar | tf.Tensor1D> {
  const clicks: tf.Tensor1D = tf.cast(tf.equal(labels, 1), 'float32')
  const others: tf.Tensor1D = tf.cast(tf.equal(labels, 0), 'float32')
  const counts = tf.add(clicks, others)
  const sum = (x: tf.Tensor): tf.Scalar => tf.sum<tf.Scalar>(tf.mul(x, counts))
  const hits = tf.cast(tf.equal(tf.cast(tf.greater(logits, 0), 'float32'), clicks), 'float32')
  const { count, range } = logitBins
  const place = tf.floor(tf.mul(tf.add(logits, range), count / (2 * range)))
  const bins = tf.cast(tf.clipByValue(place, 0, count - 1), 'int32') as tf.Tensor1D
  const histogram = (weights: tf.Tensor1D) => tf.unsortedSegmentSum(weights, bins, count) as tf.Tensor1D
  return {
    logLossSum: sum(sigmoidCrossEntropy(clicks, logits)),
    correct: sum(hits),
    count: tf.sum<tf.Scalar>(counts),
    predictionSum: sum(tf.sigmoid(logits)),
    labelSum: tf.sum<tf.Scalar>(clicks),
    clickLogits: histogram(clicks),
    otherLogits: histogram(others),
  }
}
