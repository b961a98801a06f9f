// SPDX-License-Identifier: Apache-2.0
/**
 * Any tf.LayersModel as a `Model`. The layers stay what they are, except that two kinds get another `call`, for reasons that
 * hold for every model: batch normalisation trains with the one-pass operation of operations.ts, and layers that drop or disturb
 * values draw from the step's `Random`, since TensorFlow.js would draw once, while tracing.
 */
import { strict as assert } from 'node:assert'
import * as tf from '@tensorflow/tfjs'
import { drawInitialValues, type InitializerConfig, ModelError } from './initializers.ts'
import type { BatchSchema, Model, ModelVariable, Random } from './model.ts'
import { batchNormTraining } from './operations.ts'
import { RandomStream } from './philox.ts'

/** What is learnt: how outputs are judged against the batch. Pure TensorFlow.js functions. */
export interface Objective {
  /** Mean loss over the batch, and scalars to report with it. */
  train(output: tf.Tensor, batch: tf.NamedTensorMap): { loss: tf.Scalar; metrics: Record<string, tf.Scalar> }
  /** Sums over the rows that count. */
  evaluate(output: tf.Tensor, batch: tf.NamedTensorMap): Record<string, tf.Scalar>
}

export interface LayersModelOptions {
  readonly name: string
  readonly batch: BatchSchema
  readonly objective: Objective
  /**
   * What the network sees of a batch, in the order of its inputs. `random` is given in training only. Default: the batch's
   * fields that bear the names of the network's inputs.
   */
  readonly inputs?: (batch: tf.NamedTensorMap, random: Random | undefined) => tf.Tensor | tf.Tensor[]
  /** `from-seed` draws from the layers' initializers, `as-built` keeps the values that the network has (pre-trained). */
  readonly initial?: 'from-seed' | 'as-built'
}

export function fromLayersModel(network: tf.LayersModel, options: LayersModelOptions): Model {
  const weights = weightsOf(network)
  let stepRandom: Random | undefined
  const random = (): Random => {
    assert(stepRandom, 'a layer asked for randomness outside of a training step')
    return stepRandom
  }
  for (const layer of layersOf(network)) adapt(layer, random)
  const inputs = options.inputs ?? ((batch) => network.inputNames.map((name) => field(batch, name)))

  const forward = (batch: tf.NamedTensorMap, random: Random | undefined): tf.Tensor => {
    stepRandom = random
    try {
      return network.apply(inputs(batch, random), { training: random !== undefined }) as tf.Tensor
    } finally {
      stepRandom = undefined
    }
  }
  return {
    name: options.name,
    batch: options.batch,
    variables: weights.map(({ variable }) => variable),
    train: (batch, random) => options.objective.train(forward(batch, random), batch),
    evaluate: (batch) => options.objective.evaluate(forward(batch, undefined), batch),
    initialValues(seed) {
      return new Map(
        weights.map(({ variable: { name, shape, tensor }, initializer }) => {
          if (options.initial === 'as-built') return [name, Float32Array.from(tensor.dataSync())]
          return [name, drawInitialValues(initializer, shape, new RandomStream(seed, name))]
        }),
      )
    },
  }
}

/** A batch's tensor by name; its absence is a bug of whoever checked the batch against the schema. */
export function field(batch: tf.NamedTensorMap, name: string): tf.Tensor {
  const tensor = batch[name]
  assert(tensor, `batch without ${name}`)
  return tensor
}

interface Weight {
  readonly variable: ModelVariable
  readonly initializer: InitializerConfig
}

/** Layers in the order of the model, those of nested models in their place, shared ones once. */
function layersOf(network: tf.LayersModel): tf.layers.Layer[] {
  const nested = network.layers.flatMap((layer) => ('layers' in layer ? layersOf(layer as tf.LayersModel) : [layer]))
  return [...new Set(nested)]
}

/**
 * Names are layer/weight. TensorFlow.js numbers unnamed layers (`dense_Dense7`) and repeated names through the whole
 * process; here unnamed layers are numbered within the model, so that a name depends on the model alone.
 */
function weightsOf(network: tf.LayersModel): Weight[] {
  const unnamed = new Map<string, number>()
  const weights = layersOf(network).flatMap((layer) => {
    const automatic = new RegExp(`^(.+)_${layer.getClassName()}\\d+$`).exec(layer.name)?.[1]
    if (automatic !== undefined) unnamed.set(automatic, (unnamed.get(automatic) ?? 0) + 1)
    const layerName = automatic === undefined ? layer.name : `${automatic}_${unnamed.get(automatic)}`
    const config = layer.getConfig()
    return layer.weights.map((weight): Weight => {
      const tensor = weight.read()
      assert(tensor instanceof tf.Variable && tensor.dtype === 'float32', `${weight.name} is no float32 variable`)
      const path = weight.originalName.replace(`${layer.name}/`, '').replaceAll(/_[A-Z][A-Za-z0-9]*?\d+(?=\/)/g, '')
      const kind = path.slice(path.lastIndexOf('/') + 1)
      const trainable = layer.trainableWeights.includes(weight)
      const role = !trainable ? 'statistic' : unregularised.has(kind) ? 'unregularised' : 'weight'
      const variable: ModelVariable = { name: `${layerName}/${path}`, shape: weight.shape as number[], role, tensor }
      return { variable, initializer: initializerOf(config, kind) }
    })
  })
  const names = new Set(weights.map(({ variable }) => variable.name))
  assert(names.size === weights.length, `two weights of ${network.name} bear one name: ${[...names].join(', ')}`)
  return weights
}

const unregularised = new Set(['bias', 'gamma', 'beta', 'alpha'])

/** `recurrent_kernel` → `recurrentInitializer` of the layer's configuration, or of the layer that it wraps. */
function initializerOf(config: tf.serialization.ConfigDict, kind: string): InitializerConfig {
  const stem = kind.replace(/(?<=.)_kernel$/, '').replaceAll(/_(.)/g, (_, letter: string) => letter.toUpperCase())
  const found = config[`${stem}Initializer`]
  if (found !== null && typeof found === 'object') return found as unknown as InitializerConfig
  for (const inner of [config.layer, config.cell]) {
    if (inner !== null && typeof inner === 'object' && 'config' in inner) {
      return initializerOf(inner.config as tf.serialization.ConfigDict, kind)
    }
  }
  // Said only when values are drawn from it: a pre-trained model needs none.
  return { className: `none for ${kind}`, config: {} }
}

/** Replaces `call` of this very layer where TensorFlow.js's own would be slow or would freeze its randomness. */
function adapt(layer: tf.layers.Layer, random: () => Random): void {
  const config = layer.getConfig()
  const whenTraining = (disturb: (x: tf.Tensor) => tf.Tensor): void => {
    layer.call = (inputs, { training }) => {
      const x = Array.isArray(inputs) ? inputs[0]! : inputs
      return training ? tf.tidy(() => disturb(x)) : x
    }
  }
  const rate = Number(config.rate ?? 0)
  const mask = (shape: number[]): tf.Tensor =>
    tf.div(tf.cast(tf.greaterEqual(random().uniform(shape), rate), 'float32'), 1 - rate)

  switch (layer.getClassName()) {
    case 'BatchNormalization':
      adaptBatchNormalization(layer)
      break
    case 'Dropout':
    case 'SpatialDropout1D': {
      const noiseShape = config.noiseShape as (number | null)[] | undefined
      const oneForAllSteps = layer.getClassName() === 'SpatialDropout1D'
      whenTraining((x) => {
        if (rate === 0) return x
        if (rate === 1) return tf.zerosLike(x)
        if (oneForAllSteps) return tf.mul(x, mask([x.shape[0]!, 1, x.shape[2]!]))
        return tf.mul(x, mask(noiseShape?.map((size, axis) => size ?? x.shape[axis]!) ?? x.shape))
      })
      break
    }
    case 'GaussianNoise':
      whenTraining((x) => tf.add(x, random().normal(x.shape, 0, Number(config.stddev))))
      break
    case 'GaussianDropout':
      whenTraining((x) => (rate > 0 ? tf.mul(x, random().normal(x.shape, 1, Math.sqrt(rate / (1 - rate)))) : x))
      break
    case 'AlphaDropout':
      throw unsupported(layer)
    default:
      if (drops(config)) throw unsupported(layer)
  }
}

/** Normalises over all axes but the last in training; moving averages become momentum · old + (1 − momentum) · new. */
function adaptBatchNormalization(layer: tf.layers.Layer): void {
  const { axis, momentum, epsilon, scale, center } = layer.getConfig()
  const inferred = layer.call.bind(layer)
  layer.call = (inputs, kwargs) => {
    const x = Array.isArray(inputs) ? inputs[0]! : inputs
    if (!kwargs.training || (axis !== -1 && axis !== x.rank - 1)) return inferred(x, kwargs)
    return tf.tidy(() => {
      const weights = layer.weights.map((weight) => weight.read() as tf.Tensor1D)
      const [movingMean, movingVariance] = weights.slice(-2) as tf.Variable[]
      const gamma = scale ? weights[0]! : tf.onesLike(movingMean as tf.Tensor1D)
      const beta = center ? weights[scale ? 1 : 0]! : tf.zerosLike(movingMean as tf.Tensor1D)
      const { y, mean, variance } = batchNormTraining(x, gamma, beta, Number(epsilon))
      const keep = Number(momentum)
      movingMean!.assign(tf.add(tf.mul(movingMean!, keep), tf.mul(mean, 1 - keep)))
      movingVariance!.assign(tf.add(tf.mul(movingVariance!, keep), tf.mul(variance, 1 - keep)))
      return y
    })
  }
}

/** Recurrent layers drop inside of themselves, out of reach. */
function drops(config: tf.serialization.ConfigDict): boolean {
  if (Number(config.dropout ?? 0) > 0 || Number(config.recurrentDropout ?? 0) > 0) return true
  return [config.layer, config.cell].some(
    (inner) =>
      inner !== null &&
      typeof inner === 'object' &&
      'config' in inner &&
      drops(inner.config as tf.serialization.ConfigDict),
  )
}

function unsupported(layer: tf.layers.Layer): ModelError {
  return new ModelError(
    'layer-unsupported',
    `expected layers whose randomness can be seeded by the step, got ${layer.getClassName()} (${layer.name}) with dropout`,
    { hint: 'use Dropout, SpatialDropout1D, GaussianNoise or GaussianDropout layers instead' },
  )
}
