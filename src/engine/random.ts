// SPDX-License-Identifier: Apache-2.0
/**
 * Randomness of one step, inside the graph: Philox 4×32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011) keyed by the step's seed, its counter starting at (0, number of the draw). TensorFlow's StatelessRandom…V2 operations
 * are this very generator; what stands here gives the same bits on TensorFlow.js's CPU backend.
 *
 * Good for dropout and augmentation. It is no cryptographic generator: nothing that privacy rests on may draw from it.
 */
import * as tf from '@tensorflow/tfjs'
import type { Random } from '../models/model.ts'

/** `seed`: int32 [2]. Equal seeds and equal sequences of calls give equal numbers. */
export function createRandom(seed: tf.Tensor1D): Random {
  let draws = 0
  const draw = (kernelName: string, shape: number[]): tf.Tensor => {
    const attributes = { shape, draw: draws++ }
    return tf.engine().runKernel(kernelName, { seed }, attributes)
  }
  return {
    // Scaled outside the kernel, so that both engines round alike.
    uniform: (shape, low = 0, high = 1) =>
      draw('CloisterRandomUniform', shape)
        .mul(high - low)
        .add(low),
    normal: (shape, mean = 0, standardDeviation = 1) =>
      draw('CloisterRandomNormal', shape).mul(standardDeviation).add(mean),
  }
}

type Words = [number, number, number, number]

/** Ten rounds over the counter, the key moving on after each. */
function philox(counter: Words, key: readonly [number, number]): Words {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(0xd2511f53, c0)
    const [high1, low1] = multiply(0xcd9e8d57, c2)
    c0 = (high1 ^ c1 ^ k0) >>> 0
    c1 = low1
    c2 = (high0 ^ c3 ^ k1) >>> 0
    c3 = low0
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}

/** The high and the low word of a product of two unsigned words. */
function multiply(a: number, b: number): [high: number, low: number] {
  const [aHigh, aLow] = [a >>> 16, a & 0xffff]
  const [bHigh, bLow] = [b >>> 16, b & 0xffff]
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16)
  const carry = (middle % 0x10000) + aLow * bHigh
  return [aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000), Math.imul(a, b) >>> 0]
}

/** 23 random bits as the fraction of a float in [1, 2), less 1. */
function fraction(word: number): number {
  return (word & 0x7fffff) / 0x800000
}

/** Two uniform words to two normal floats, each step rounded to float32 as TensorFlow's Box–Muller rounds it. */
function boxMuller(first: number, second: number): [number, number] {
  const { fround } = Math
  const radius = fround(Math.sqrt(fround(-2 * fround(Math.log(Math.max(fraction(first), fround(1e-7)))))))
  const angle = fround(2 * Math.PI * fraction(second))
  return [fround(fround(Math.sin(angle)) * radius), fround(fround(Math.cos(angle)) * radius)]
}

function registerDraw(kernelName: string, distribution: (words: Words) => readonly number[]): void {
  tf.registerKernel({
    kernelName,
    backendName: 'cpu',
    kernelFunc: ({ inputs, attrs }) => {
      const { shape, draw } = attrs as unknown as { shape: number[]; draw: number }
      const [low, high] = (inputs.seed as tf.Tensor).dataSync()
      const key = [low! >>> 0, high! >>> 0] as const
      const values = new Float32Array(tf.util.sizeFromShape(shape))
      for (let i = 0; i < values.length; i += 4) {
        const block = i / 4
        const words = philox([block >>> 0, Math.floor(block / 2 ** 32), draw, 0], key)
        distribution(words).forEach((value, lane) => {
          if (i + lane < values.length) values[i + lane] = value
        })
      }
      return tf.tensor(values, shape)
    },
  })
}

registerDraw('CloisterRandomUniform', (words) => words.map(fraction))
registerDraw('CloisterRandomNormal', ([a, b, c, d]) => [...boxMuller(a, b), ...boxMuller(c, d)])
