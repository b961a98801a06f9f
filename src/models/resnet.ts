// SPDX-License-Identifier: Apache-2.0
/**
 * Residual networks for CIFAR-10: He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (2016a, §4.2 and
 * table 1), version 1, and "Identity mappings in deep residual networks" (2016b), version 2. Layers are named after table 1:
 * `conv3_2/conv1` is the first convolution of the second block of the stage whose outputs have half the image's size.
 */
import { strict as assert } from 'node:assert'
import * as tf from '@tensorflow/tfjs'

type Tensor = tf.SymbolicTensor

export interface ResNetOptions {
  /** Height and width of the (cropped) images. */
  readonly imageSize: number
  readonly classes?: number
  /** Share of the old moving average kept in a step. */
  readonly batchNormMomentum?: number
  readonly batchNormEpsilon?: number
}

export interface CifarResNetOptions extends ResNetOptions {
  /** 6n + 2 with n blocks of two convolutions in each of three stages: 20, 32, 44, 56, 110, … */
  readonly depth: number
  /** 1: normalisation and activation after each convolution, and after the sum; 2: before each convolution. */
  readonly version: 1 | 2
  /**
   * Where the number of filters grows: `identity` subsamples and pads with zero channels (option A, the paper's choice on
   * CIFAR), `projection` is a 1×1 convolution (option B). Default: identity in version 1; projection in version 2, there in
   * the first block of every stage, as the reference system has it.
   */
  readonly shortcut?: 'identity' | 'projection'
}

export interface BottleneckResNetOptions extends ResNetOptions {
  readonly depth: 50 | 101 | 152
}

/** 16, 32 and 64 filters, basic blocks; no softmax at the end. */
export function cifarResNet(options: CifarResNetOptions): tf.LayersModel {
  const { depth, version, imageSize } = options
  assert(depth >= 8 && (depth - 2) % 6 === 0, `a CIFAR ResNet has 6n + 2 layers, n ≥ 1; got ${depth}`)
  const shortcut = options.shortcut ?? (version === 1 ? 'identity' : 'projection')
  const norm = normalisation(options)
  const images = tf.input({ shape: [imageSize, imageSize, 3], name: 'images' })

  let x = convolution('conv1', 16, 3)(images)
  if (version === 1) x = norm.activated('norm1')(x)
  for (const [stage, filters] of [16, 32, 64].entries()) {
    for (let block = 1; block <= (depth - 2) / 6; block++) {
      const name = `conv${stage + 2}_${block}`
      const strides = stage > 0 && block === 1 ? 2 : 1
      const add = tf.layers.add({ name: `${name}/add` })
      if (version === 1) {
        let y = norm.activated(`${name}/norm1`)(convolution(`${name}/conv1`, filters, 3, strides)(x))
        y = norm.plain(`${name}/norm2`)(convolution(`${name}/conv2`, filters, 3)(y))
        let skip = x
        if (strides > 1 && shortcut === 'identity') skip = identity(name, filters, strides)(x)
        else if (strides > 1) skip = norm.plain(`${name}/shortcut_norm`)(projection(name, filters, strides)(x))
        x = activation(`${name}/relu`)(apply(add, [y, skip]))
      } else {
        const activated = norm.activated(`${name}/norm1`)(x)
        let y = convolution(`${name}/conv1`, filters, 3, strides)(activated)
        y = convolution(`${name}/conv2`, filters, 3)(norm.activated(`${name}/norm2`)(y))
        let skip = x
        if (block === 1 && shortcut === 'projection') skip = projection(name, filters, strides)(activated)
        else if (strides > 1) skip = identity(name, filters, strides)(activated)
        x = apply(add, [y, skip])
      }
    }
  }
  if (version === 2) x = norm.activated('norm_last')(x)
  return tf.model({ inputs: images, outputs: classifier(options.classes)(x), name: `resnet${depth}v${version}` })
}

/**
 * ResNet-50, 101 and 152 of table 1 with a stem for small images: 3×3 convolution, stride 1, no pooling. Version 1. The stride of
 * a stage stands in its first 3×3 convolution, as in nearly all implementations; the paper's first one had it in the 1×1 before.
 */
export function bottleneckResNet(options: BottleneckResNetOptions): tf.LayersModel {
  const { depth, imageSize } = options
  const blocks = { 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3] }[depth]
  const norm = normalisation(options)
  const images = tf.input({ shape: [imageSize, imageSize, 3], name: 'images' })

  let x = norm.activated('norm1')(convolution('conv1', 64, 3)(images))
  for (const [stage, filters] of [64, 128, 256, 512].entries()) {
    for (let block = 1; block <= blocks[stage]!; block++) {
      const name = `conv${stage + 2}_${block}`
      const strides = stage > 0 && block === 1 ? 2 : 1
      let y = norm.activated(`${name}/norm1`)(convolution(`${name}/conv1`, filters, 1)(x))
      y = norm.activated(`${name}/norm2`)(convolution(`${name}/conv2`, filters, 3, strides)(y))
      y = norm.plain(`${name}/norm3`)(convolution(`${name}/conv3`, 4 * filters, 1)(y))
      const skip = block > 1 ? x : norm.plain(`${name}/shortcut_norm`)(projection(name, 4 * filters, strides)(x))
      x = activation(`${name}/relu`)(apply(tf.layers.add({ name: `${name}/add` }), [y, skip]))
    }
  }
  return tf.model({ inputs: images, outputs: classifier(options.classes)(x), name: `resnet${depth}` })
}

type Layer = (x: Tensor) => Tensor

function apply(layer: tf.layers.Layer, inputs: Tensor | Tensor[]): Tensor {
  return layer.apply(inputs) as Tensor
}

/** Without bias, since a normalisation follows; He et al. 2015 initialisation. */
function convolution(name: string, filters: number, kernelSize: number, strides = 1): Layer {
  const kernelInitializer = 'heNormal'
  return (x) =>
    apply(
      tf.layers.conv2d({ name, filters, kernelSize, strides, padding: 'same', useBias: false, kernelInitializer }),
      x,
    )
}

function projection(block: string, filters: number, strides: number): Layer {
  return convolution(`${block}/shortcut`, filters, 1, strides)
}

function identity(block: string, filters: number, strides: number): Layer {
  return (x) => apply(new IdentityShortcut({ name: `${block}/shortcut`, filters, strides }), x)
}

function activation(name: string): Layer {
  return (x) => apply(tf.layers.reLU({ name }), x)
}

function normalisation({ batchNormMomentum = 0.9, batchNormEpsilon = 1e-5 }: ResNetOptions) {
  const plain =
    (name: string): Layer =>
    (x) =>
      apply(tf.layers.batchNormalization({ name, momentum: batchNormMomentum, epsilon: batchNormEpsilon }), x)
  const activated =
    (name: string): Layer =>
    (x) =>
      activation(name.replace('norm', 'relu'))(plain(name)(x))
  return { plain, activated }
}

function classifier(classes = 10): Layer {
  return (x) =>
    apply(
      tf.layers.dense({ name: 'fc', units: classes, kernelInitializer: 'heNormal' }),
      apply(tf.layers.globalAveragePooling2d({ name: 'pool' }), x),
    )
}

/** Option A of He et al. 2016a: subsampled, new channels zero. Subclassing is TensorFlow.js's only way to a new layer. */
class IdentityShortcut extends tf.layers.Layer {
  static readonly className = 'IdentityShortcut'
  readonly #filters: number
  readonly #strides: number

  constructor({ name, filters, strides }: { name: string; filters: number; strides: number }) {
    super({ name })
    this.#filters = filters
    this.#strides = strides
  }

  override computeOutputShape(inputShape: tf.Shape | tf.Shape[]): tf.Shape {
    const [batch, height, width] = inputShape as tf.Shape
    return [batch!, Math.ceil(height! / this.#strides), Math.ceil(width! / this.#strides), this.#filters]
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    const x = (Array.isArray(inputs) ? inputs[0]! : inputs) as tf.Tensor4D
    const subsampled = tf.avgPool(x, 1, this.#strides, 'same')
    return tf.pad(subsampled, [
      [0, 0],
      [0, 0],
      [0, 0],
      [0, this.#filters - x.shape[3]],
    ])
  }

  override getConfig(): tf.serialization.ConfigDict {
    return { ...super.getConfig(), filters: this.#filters, strides: this.#strides }
  }
}
