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
import { philox4x32 } from '../models/philox.ts'

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

/** `distribution` makes four numbers of the four words of a block. */
function registerDraw(kernelName: string, distribution: (words: Uint32Array) => readonly number[]): void {
  tf.registerKernel({
    kernelName,
    backendName: 'cpu',
    kernelFunc: ({ inputs, attrs }) => {
      const { shape, draw } = attrs as unknown as { shape: number[]; draw: number }
      const key = Uint32Array.from((inputs.seed as tf.Tensor).dataSync())
      const words = new Uint32Array(4)
      const values = new Float32Array(tf.util.sizeFromShape(shape))
      for (let i = 0; i < values.length; i += 4) {
        philox4x32(Uint32Array.of(i / 4, 0, draw, 0), key, words)
        values.set(distribution(words).slice(0, values.length - i), i)
      }
      return tf.tensor(values, shape)
    },
  })
}

registerDraw('CloisterRandomUniform', (words) => Array.from(words, fraction))
registerDraw('CloisterRandomNormal', ([a, b, c, d]) => [...boxMuller(a!, b!), ...boxMuller(c!, d!)])
