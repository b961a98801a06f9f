// SPDX-License-Identifier: Apache-2.0
/**
 * Any tf.LayersModel as a `Model`: its weights become named variables, its call the forward pass. Layers that draw random
 * numbers, and batch normalisation, get other bodies while the engine runs or traces a step (engine/layer-overrides.ts).
 */
import { strict as assert } from 'node:assert'
import * as tf from '@tensorflow/tfjs'
import { drawInitialValues, type InitializerConfig, ModelError } from './initializers.ts'
import type { BatchSchema, Model, ModelVariable, Random } from './model.ts'
import { RandomStream } from './philox.ts'

/** What is learnt: how outputs are judged against the batch. Pure TensorFlow.js functions. */
export interface Objective {
  /** Mean loss over the batch, and scalars to report with it. */
  train(output: tf.Tensor, batch: tf.NamedTensorMap): { loss: tf.Scalar; metrics: Record<string, tf.Scalar> }
  /** Sums over the rows that count. */
  evaluate(output: tf.Tensor, batch: tf.NamedTensorMap): Record<string, tf.Scalar>
  /** What the output says to who uses the model. Default: `output` as it is. */
  predict?(output: tf.Tensor): Record<string, tf.Tensor>
}

export interface LayersModelOptions {
  readonly name: string
  readonly batch: BatchSchema
  readonly objective: Objective
  /**
   * What the network sees of a batch, in the order of its inputs. `random` is given in training only. Default: the batch's
   * fields except `labels`, in the order of the schema.
   */
  readonly inputs?: (batch: tf.NamedTensorMap, random: Random | undefined) => tf.Tensor | tf.Tensor[]
  /** `from-seed` draws from the layers' initializers, `as-built` keeps the values that the network has (pre-trained). */
  readonly initial?: 'from-seed' | 'as-built'
}

export function fromLayersModel(network: tf.LayersModel, options: LayersModelOptions): Model {
  const weights = weightsOf(network)
  const inputNames = Object.keys(options.batch).filter((name) => name !== 'labels')
  const inputs = options.inputs ?? ((batch) => inputNames.map((name) => field(batch, name)))

  const forward = (batch: tf.NamedTensorMap, random?: Random): tf.Tensor =>
    network.apply(inputs(batch, random), { training: random !== undefined }) as tf.Tensor
  return {
    name: options.name,
    batch: options.batch,
    tables: [],
    variables: weights.map(({ variable }) => variable),
    train: (batch, random) => options.objective.train(forward(batch, random), batch),
    evaluate: (batch) => options.objective.evaluate(forward(batch), batch),
    predict(batch) {
      const output = forward(batch)
      return options.objective.predict?.(output) ?? { output }
    },
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
    checkAxis(layer, config)
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

/** Without training, TensorFlow.js's CPU kernel takes the channels for the last axis, whatever the layer says. */
function checkAxis(layer: tf.layers.Layer, { axis }: tf.serialization.ConfigDict): void {
  const channelsLast = axis === -1 || axis === (layer.inputSpec?.[0]?.ndim ?? 0) - 1
  if (layer.getClassName() !== 'BatchNormalization' || channelsLast) return
  throw new ModelError(
    'layer-unsupported',
    `${layer.name}: expected batch normalisation over the last axis, got axis ${axis}`,
    { hint: 'build the network with channels last' },
  )
}
