// SPDX-License-Identifier: Apache-2.0
/**
 * TensorFlow.js's layers, fit for tracing. Its dropout and noise layers draw numbers in JavaScript, which a trace would
 * freeze, and its batch normalisation takes a dozen operations. While `withLayerOverrides` runs, their `call` draws from
 * the step's `Random` and normalises by `batchNormTraining`, so that any `tf.LayersModel` can be trained on both engines
 * with the same numbers. Outside of training, and outside of `body`, every layer does what it always does.
 */
import assert from 'node:assert'
import * as tf from '@tensorflow/tfjs'
import type { Random } from '../models/model.ts'
import { batchNormTraining } from '../models/operations.ts'

type Call = (this: never, inputs: tf.Tensor | tf.Tensor[], kwargs: CallOptions) => tf.Tensor | tf.Tensor[]

interface CallOptions {
  readonly training?: boolean
}

/** What all layers have; `invokeCallHook` is protected in TensorFlow.js's types, so the classes cannot be named here. */
interface Layer {
  invokeCallHook(inputs: tf.Tensor | tf.Tensor[], kwargs: CallOptions): void
}

/** Runs `body`, which must be synchronous, with `random` behind the layers; their own methods come back, also on throw. */
export function withLayerOverrides<T>(random: Random, body: () => T): T {
  const cells = new Set<RecurrentCell>()
  const overrides: Record<string, (original: Call) => Call> = {
    Dropout: dropoutLayer(random),
    GaussianNoise: noiseLayer((layer: GaussianNoise, x) => x.add(random.normal(x.shape, 0, layer.stddev))),
    GaussianDropout: noiseLayer(gaussianDropout(random)),
    AlphaDropout: noiseLayer(alphaDropout(random)),
    BatchNormalization: batchNormalization,
    SimpleRNNCell: recurrentCell(random, cells),
    GRUCell: recurrentCell(random, cells),
    LSTMCell: recurrentCell(random, cells),
    ConvLSTM2DCell: recurrentCell(random, cells),
  }
  const restore: (() => void)[] = []
  try {
    for (const [className, override] of Object.entries(overrides)) {
      const prototype = prototypeOf(className)
      const original = prototype.call
      prototype.call = override(original)
      restore.push(() => {
        prototype.call = original
      })
    }
    const result = body()
    assert(!(result instanceof Promise), 'withLayerOverrides: the body must be synchronous')
    return result
  } finally {
    for (const undo of restore) undo()
    for (const cell of cells) forgetMasks(cell)
  }
}

function prototypeOf(className: string): { call: Call } {
  const registered = tf.serialization.SerializationMap.getMap().classNameMap[className]
  assert(registered !== undefined, `TensorFlow.js has no layer ${className}`)
  return (registered[0] as unknown as { prototype: { call: Call } }).prototype
}

function single(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
  if (!Array.isArray(inputs)) return inputs
  assert.equal(inputs.length, 1, 'this layer takes one tensor')
  return inputs[0]!
}

/** Zeroes each element with the given chance and scales the rest, so that the sum is expected to stay. */
function dropout(random: Random, x: tf.Tensor, rate: number, noiseShape: number[] = x.shape): tf.Tensor {
  const kept = random.uniform(noiseShape).greaterEqual(rate).cast('float32')
  return x.mul(kept.div(1 - rate))
}

interface Dropout extends Layer {
  readonly rate: number
  /** SpatialDropout1D inherits `call` and overrides this. */
  getNoiseShape(input: tf.Tensor): number[] | null | undefined
}

function dropoutLayer(random: Random) {
  return (original: Call): Call =>
    function (this: Dropout, inputs, kwargs) {
      if (!kwargs.training || this.rate <= 0 || this.rate >= 1) return original.call(this as never, inputs, kwargs)
      return tf.tidy(() => {
        this.invokeCallHook(inputs, kwargs)
        const x = single(inputs)
        return dropout(random, x, this.rate, this.getNoiseShape(x) ?? x.shape)
      })
    }
}

/** A layer that only adds noise: anything but training is its own business. */
function noiseLayer<L extends Layer>(noisy: (layer: L, x: tf.Tensor) => tf.Tensor) {
  return (original: Call): Call =>
    function (this: L, inputs, kwargs) {
      if (!kwargs.training) return original.call(this as never, inputs, kwargs)
      return tf.tidy(() => {
        this.invokeCallHook(inputs, kwargs)
        return noisy(this, single(inputs))
      })
    }
}

interface GaussianNoise extends Layer {
  readonly stddev: number
}

interface RatedLayer extends Layer {
  readonly rate: number
  readonly noiseShape?: number[]
}

/** Multiplies by noise of mean 1 (Srivastava et al. 2014, section 10). */
function gaussianDropout(random: Random) {
  return ({ rate }: RatedLayer, x: tf.Tensor): tf.Tensor =>
    rate > 0 && rate < 1 ? x.mul(random.normal(x.shape, 1, Math.sqrt(rate / (1 - rate)))) : x
}

/** Sets elements to SELU's negative saturation and restores mean and variance (Klambauer et al. 2017, section 3). */
function alphaDropout(random: Random) {
  return ({ rate, noiseShape }: RatedLayer, x: tf.Tensor): tf.Tensor => {
    if (rate <= 0 || rate >= 1) return x
    const saturation = -tf.backend_util.SELU_SCALEALPHA
    const kept = random
      .uniform(noiseShape ?? x.shape)
      .greaterEqual(rate)
      .cast('float32')
    const scale = ((1 - rate) * (1 + rate * saturation ** 2)) ** -0.5
    const shift = -scale * saturation * rate
    const dropped = tf.sub(1, kept).mul(saturation)
    return x.mul(kept).add(dropped).mul(scale).add(shift)
  }
}

interface Weight {
  read(): tf.Tensor1D
  write(value: tf.Tensor): void
}

interface BatchNormalization extends Layer {
  readonly axis: number
  readonly momentum: number
  readonly epsilon: number
  readonly gamma?: Weight
  readonly beta?: Weight
  readonly movingMean: Weight
  readonly movingVariance: Weight
}

function batchNormalization(original: Call): Call {
  return function (this: BatchNormalization, inputs, kwargs) {
    if (!kwargs.training) return original.call(this as never, inputs, kwargs)
    return tf.tidy(() => {
      const x = single(inputs)
      const axis = this.axis < 0 ? this.axis + x.rank : this.axis
      const channels = [x.shape[axis]!]
      const scale = this.gamma?.read() ?? tf.ones<tf.Rank.R1>(channels as [number])
      const offset = this.beta?.read() ?? tf.zeros<tf.Rank.R1>(channels as [number])
      // batchNormTraining wants the channels last.
      const others = x.shape.map((_, i) => i).filter((i) => i !== axis)
      const last = axis === x.rank - 1
      const { y, mean, variance } = batchNormTraining(
        last ? x : x.transpose([...others, axis]),
        scale,
        offset,
        this.epsilon,
      )
      moveAverage(this.movingMean, mean, this.momentum)
      moveAverage(this.movingVariance, variance, this.momentum)
      return last ? y : y.transpose(x.shape.map((_, i) => (i === axis ? x.rank - 1 : others.indexOf(i))))
    })
  }
}

function moveAverage(average: Weight, value: tf.Tensor, momentum: number): void {
  const before = average.read()
  average.write(before.sub(before.sub(value).mul(1 - momentum)))
}

/** A cell keeps the masks of its dropout from one time step to the next. */
interface RecurrentCell {
  dropoutFunc?: (x: tf.Tensor, rate: number) => tf.Tensor
  dropoutMask: tf.Tensor | tf.Tensor[] | null
  recurrentDropoutMask: tf.Tensor | tf.Tensor[] | null
}

/** Cells ask `dropoutFunc` for their masks. Masks of earlier runs must not reach this one, nor its masks a later one. */
function recurrentCell(random: Random, cells: Set<RecurrentCell>) {
  return (original: Call): Call =>
    function (this: RecurrentCell, inputs, kwargs) {
      if (!cells.has(this)) forgetMasks(this)
      cells.add(this)
      const given = this.dropoutFunc
      this.dropoutFunc = given ?? ((x, rate) => dropout(random, x, rate))
      try {
        return original.call(this as never, inputs, kwargs)
      } finally {
        if (given === undefined) delete this.dropoutFunc
      }
    }
}

function forgetMasks(cell: RecurrentCell): void {
  for (const masks of [cell.dropoutMask, cell.recurrentDropoutMask]) if (masks) tf.dispose(masks)
  cell.dropoutMask = null
  cell.recurrentDropoutMask = null
}
