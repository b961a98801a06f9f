// SPDX-License-Identifier: Apache-2.0
/**
 * Augmentation of image batches as TensorFlow.js operations, so that it runs inside the training step's graph, seeded: random
 * crops and flips (He et al. 2016a, §4.2; 24×24 crops: McMahan et al. 2017), brightness, contrast and per-image
 * standardisation as TensorFlow's CIFAR-10 tutorial and the reference system have them. Every image has draws of its own.
 */
import { strict as assert } from 'node:assert'
import * as tf from '@tensorflow/tfjs'
import type { Random } from './model.ts'

/** Images are [batch, height, width, channels]. */
type Images = tf.Tensor4D

export interface Augmentation {
  /** Zero pixels added to each side before the crop. */
  readonly padding: number
  readonly flip: boolean
  /** A number from [−delta, delta) is added to each image; on pixels from 0 to 255. Per-image standardisation undoes it. */
  readonly brightnessDelta?: number
  /** Each image's distances from its channels' means are multiplied by a factor from this range. */
  readonly contrast?: readonly [low: number, high: number]
}

/** What the reference system does: 63 and 0.2–1.8 are the tutorial's figures. */
export const referenceAugmentation: Augmentation = {
  padding: 0,
  flip: true,
  brightnessDelta: 63,
  contrast: [0.2, 1.8],
}

/** int32 images → float32 crops of size × size, augmented and standardised. */
export function augment(images: Images, size: number, augmentation: Augmentation, random: Random): Images {
  const { padding, flip, brightnessDelta, contrast } = augmentation
  let x: Images = randomCrop(images, { size, padding, flip }, random)
  if (brightnessDelta !== undefined) x = randomBrightness(x, brightnessDelta, random)
  if (contrast !== undefined) x = randomContrast(x, contrast, random)
  return standardise(x)
}

/** Crops at random places, mirrored with probability ½, all in one gather of pixels. */
export function randomCrop(
  images: Images,
  { size, padding, flip }: { size: number; padding: number; flip: boolean },
  random: Random,
): Images {
  const margin: [number, number] = [padding, padding]
  const padded = padding > 0 ? tf.pad(images, [[0, 0], margin, margin, [0, 0]]) : images
  const [batch, height, width, channels] = padded.shape
  assert(size <= height && size <= width, `crops of ${size} from images of ${height}×${width}`)
  const within = tf.range(0, size, 1, 'int32')
  const rows = tf.add(randomInteger(random, batch, height - size + 1), within)
  let columnsWithin: tf.Tensor = within
  if (flip) {
    // j or size − 1 − j: mirrored by the sign.
    const mirrored = tf.cast(tf.less(random.uniform([batch, 1]), 0.5), 'int32')
    const sign = tf.sub(integer(1), tf.mul(mirrored, integer(2)))
    columnsWithin = tf.add(tf.mul(sign, within), tf.mul(mirrored, integer(size - 1)))
  }
  const columns = tf.add(randomInteger(random, batch, width - size + 1), columnsWithin)
  const firstPixels = tf.range(0, batch * height * width, height * width, 'int32')
  const firstOfRows = tf.add(tf.reshape(firstPixels, [batch, 1]), tf.mul(rows, integer(width)))
  const pixels: tf.Tensor3D = tf.add(tf.expandDims(firstOfRows, 2), tf.expandDims(columns, 1))
  const cropped = tf.gather(tf.reshape(padded, [batch * height * width, channels]), pixels)
  return tf.cast(cropped, 'float32') as Images
}

/** TensorFlow.js takes bare numbers for float32. */
function integer(value: number): tf.Scalar {
  return tf.scalar(value, 'int32')
}

/** One integer of [0, bound) for each image, [batch, 1] int32. */
function randomInteger(random: Random, batch: number, bound: number): tf.Tensor {
  // float32 may round u · bound up to bound itself.
  const scaled = tf.floor(tf.mul(random.uniform([batch, 1]), bound))
  return tf.cast(tf.minimum(scaled, bound - 1), 'int32')
}

export function randomBrightness(images: Images, delta: number, random: Random): Images {
  return tf.add(images, random.uniform([images.shape[0], 1, 1, 1], -delta, delta))
}

export function randomContrast(images: Images, [low, high]: readonly [number, number], random: Random): Images {
  const factor = random.uniform([images.shape[0], 1, 1, 1], low, high)
  const mean = tf.mean(images, [1, 2], true)
  return tf.add(tf.mul(tf.sub(images, mean), factor), mean)
}

/** Each image to mean 0 and deviation 1; the deviation counts as at least 1/√N, so that an even image becomes 0. */
export function standardise(images: Images): Images {
  const values = images.shape[1] * images.shape[2] * images.shape[3]
  const centred = tf.sub(images, tf.mean(images, [1, 2, 3], true))
  const deviation = tf.sqrt(tf.mean(tf.square(centred), [1, 2, 3], true))
  return tf.div(centred, tf.maximum(deviation, 1 / Math.sqrt(values)))
}

/** The middle size × size of each image, for evaluation. */
export function centreCrop(images: Images, size: number): Images {
  const [batch, height, width, channels] = images.shape
  assert(size <= height && size <= width, `crops of ${size} from images of ${height}×${width}`)
  const [top, left] = [Math.floor((height - size) / 2), Math.floor((width - size) / 2)]
  return tf.cast(tf.slice(images, [0, top, left, 0], [batch, size, size, channels]), 'float32') as Images
}
