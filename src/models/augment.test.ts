import * as tf from '@tensorflow/tfjs'
import { describe, expect, test } from 'vitest'
import { augment, centreCrop, randomBrightness, randomContrast, randomCrop, standardise } from './augment.ts'
import type { Random } from './model.ts'
import { RandomStream } from './philox.ts'

/** A Random whose draws can be read afterwards, in order, one list a call. */
function recorded(seed: number): { random: Random; draws: Float32Array[] } {
  const stream = new RandomStream(seed, 'test')
  const draws: Float32Array[] = []
  const tensor = (shape: number[], draw: () => number): tf.Tensor => {
    const values = Float32Array.from({ length: shape.reduce((product, size) => product * size, 1) }, draw)
    draws.push(values)
    return tf.tensor(values, shape)
  }
  return {
    draws,
    random: {
      uniform: (shape, low = 0, high = 1) => tensor(shape, () => low + (high - low) * stream.uniform()),
      normal: (shape, mean = 0, deviation = 1) => tensor(shape, () => mean + deviation * stream.normal()),
    },
  }
}

type Image = number[][][]

function someImages(batch: number, side: number, seed = 1): tf.Tensor4D {
  const stream = new RandomStream(seed, 'images')
  const values = Int32Array.from({ length: batch * side * side * 3 }, () => stream.below(256))
  return tf.tensor4d(values, [batch, side, side, 3], 'int32')
}

const imagesOf = (images: tf.Tensor4D) => images.arraySync() as Image[]
const float = (images: tf.Tensor4D) => images.toFloat() as tf.Tensor4D

function expectClose(got: tf.Tensor, expected: Image[], digits = 4): void {
  const flat = expected.flat(3)
  expect(got.size).toBe(flat.length)
  got.dataSync().forEach((value, index) => {
    expect(value).toBeCloseTo(flat[index]!, digits)
  })
}

describe('random crop', () => {
  test.each([
    { size: 24, padding: 0, flip: true },
    { size: 32, padding: 4, flip: true },
    { size: 5, padding: 0, flip: false },
    { size: 32, padding: 0, flip: true },
  ])('of $size, padding $padding, flip $flip: the pixels of the place drawn', (options) => {
    const images = someImages(40, 32)
    const { random, draws } = recorded(2)
    const crops = imagesOf(randomCrop(images, options, random))
    const rowDraws = draws[0]!
    const [flips, columnDraws] = options.flip ? [draws[1]!, draws[2]!] : [undefined, draws[1]!]
    const room = 32 + 2 * options.padding - options.size + 1
    const seen = { flipped: 0, padded: 0 }
    imagesOf(images).forEach((image, index) => {
      const top = Math.floor(rowDraws[index]! * room) - options.padding
      const left = Math.floor(columnDraws[index]! * room) - options.padding
      const flipped = flips !== undefined && flips[index]! < 0.5
      const expected = Array.from({ length: options.size }, (_, y) =>
        Array.from({ length: options.size }, (_, j) => {
          const x = flipped ? options.size - 1 - j : j
          return image[top + y]?.[left + x] ?? [0, 0, 0]
        }),
      )
      expect(crops[index]).toEqual(expected)
      seen.flipped += flipped ? 1 : 0
      seen.padded += top < 0 || left < 0 || top + options.size > 32 || left + options.size > 32 ? 1 : 0
    })
    if (options.flip) expect(Math.abs(seen.flipped - 20)).toBeLessThan(16)
    expect(seen.padded > 0).toBe(options.padding > 0)
  })

  test('a draw next to 1 stays inside of the image', () => {
    const images = someImages(1, 32)
    const almostOne: Random = {
      uniform: (shape) => tf.fill(shape, 1 - 2 ** -24),
      normal: (shape) => tf.zeros(shape),
    }
    // 1 − 2⁻²⁴ rounds to 1 when multiplied: the last place, not one beyond it.
    const crops = imagesOf(randomCrop(images, { size: 29, padding: 0, flip: false }, almostOne))
    expect(crops[0]![28]![28]).toEqual(imagesOf(images)[0]![31]![31])
  })

  test('larger than the image is a bug', () => {
    expect(() => randomCrop(someImages(1, 8), { size: 9, padding: 0, flip: false }, recorded(1).random)).toThrow(
      /crops/,
    )
    expect(() => centreCrop(someImages(1, 8), 9)).toThrow(/crops/)
  })
})

test('brightness adds one number to an image', () => {
  const images = float(someImages(4, 6))
  const { random, draws } = recorded(3)
  const got = randomBrightness(images, 63, random)
  const expected = imagesOf(images).map((image, index) =>
    image.map((row) => row.map((pixel) => pixel.map((value) => value + draws[0]![index]!))),
  )
  expectClose(got, expected)
  expect(Math.max(...draws[0]!)).toBeGreaterThan(1)
  for (const delta of draws[0]!) expect(Math.abs(delta)).toBeLessThanOrEqual(63)
})

test('contrast stretches each channel about its own mean', () => {
  const images = float(someImages(4, 6))
  const { random, draws } = recorded(4)
  const got = randomContrast(images, [0.2, 1.8], random)
  const expected = imagesOf(images).map((image, index) => {
    const means = [0, 1, 2].map((c) => image.flat().reduce((sum, pixel) => sum + pixel[c]!, 0) / 36)
    return image.map((row) =>
      row.map((pixel) => pixel.map((value, c) => (value - means[c]!) * draws[0]![index]! + means[c]!)),
    )
  })
  expectClose(got, expected, 3)
  for (const factor of draws[0]!) expect(factor).toBeGreaterThanOrEqual(0.2)
})

test('standardisation: mean 0 and deviation 1 of each image, an even image becomes 0', () => {
  const even = tf.fill([1, 6, 6, 3], 77) as tf.Tensor4D
  // One value in 108 differs by 0.1: a deviation of 0.0096, below 1/√108 = 0.0962.
  const faint = tf.tensor4d(
    Float32Array.from({ length: 108 }, (_, index) => (index === 40 ? 0.1 : 0)),
    [1, 6, 6, 3],
  )
  const images = tf.concat([float(someImages(2, 6)), even, faint]) as tf.Tensor4D
  const expected = imagesOf(images).map((image) => {
    const values = image.flat(2)
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length)
    const divisor = Math.max(deviation, 1 / Math.sqrt(values.length))
    return image.map((row) => row.map((pixel) => pixel.map((value) => (value - mean) / divisor)))
  })
  expectClose(standardise(images), expected)
  expect(expected[2]!.flat(2).every((value) => value === 0)).toBe(true)
})

test('the centre crop is the middle', () => {
  const images = someImages(2, 32)
  const crops = imagesOf(centreCrop(images, 24))
  expect(crops).toEqual(imagesOf(images).map((image) => image.slice(4, 28).map((row) => row.slice(4, 28))))
  expect(imagesOf(centreCrop(images, 32))).toEqual(imagesOf(images))
})

test('augment is crop, brightness, contrast and standardisation, in this order, each when asked for', () => {
  const images = someImages(3, 32)
  const whole = augment(
    images,
    24,
    { padding: 2, flip: true, brightnessDelta: 20, contrast: [0.5, 1.5] },
    recorded(5).random,
  )
  const { random } = recorded(5)
  const cropped = randomCrop(images, { size: 24, padding: 2, flip: true }, random)
  const steps = standardise(randomContrast(randomBrightness(cropped, 20, random), [0.5, 1.5], random))
  expect(whole.dataSync()).toEqual(steps.dataSync())

  const plain = augment(images, 24, { padding: 0, flip: false }, recorded(6).random)
  const alone = standardise(randomCrop(images, { size: 24, padding: 0, flip: false }, recorded(6).random))
  expect(plain.dataSync()).toEqual(alone.dataSync())
})
