// SPDX-License-Identifier: Apache-2.0
/**
 * Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), and streams of
 * numbers over it. Counter-based: a stream is a function of (seed, purpose) alone, whatever was drawn elsewhere before, so that
 * initial values, shuffles and partitions are the same in every process. Not for secrets, and not for privacy noise.
 */
import { strict as assert } from 'node:assert'

/** The block function: 4 counter words and 2 key words to 4 random words, written to `out`. */
export function philox4x32(counter: Uint32Array, key: Uint32Array, out: Uint32Array): void {
  let c0 = counter[0]!
  let c1 = counter[1]!
  let c2 = counter[2]!
  let c3 = counter[3]!
  let k0 = key[0]!
  let k1 = key[1]!
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0)
    const low0 = Math.imul(0xd2511f53, c0)
    const high1 = multiplyHigh(0xcd9e8d57, c2)
    const low1 = Math.imul(0xcd9e8d57, c2)
    c0 = (high1 ^ c1 ^ k0) >>> 0
    c1 = low1 >>> 0
    c2 = (high0 ^ c3 ^ k1) >>> 0
    c3 = low0 >>> 0
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  out[0] = c0
  out[1] = c1
  out[2] = c2
  out[3] = c3
}

/** Upper 32 bits of a 64-bit product: JavaScript has only the lower ones (Math.imul). */
function multiplyHigh(a: number, b: number): number {
  const aHigh = a >>> 16
  const aLow = a & 0xffff
  const bHigh = b >>> 16
  const bLow = b & 0xffff
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16)
  const carry = aLow * bHigh + (middle & 0xffff)
  return aHigh * bHigh + (middle >>> 16) + (carry >>> 16)
}

/** A key from a seed and a text: the text's blocks are absorbed through Philox, its length last. */
export function keyOf(seed: number, purpose: string): Uint32Array {
  assert(Number.isSafeInteger(seed) && seed >= 0, `a seed is an integer from 0 to 2^53 − 1, got ${seed}`)
  const text = new TextEncoder().encode(purpose)
  const padded = new Uint8Array(Math.ceil((text.length + 4) / 16) * 16)
  padded.set(text)
  const view = new DataView(padded.buffer)
  view.setUint32(padded.length - 4, text.length, true)
  const key = Uint32Array.of(seed >>> 0, Math.floor(seed / 2 ** 32))
  const block = new Uint32Array(4)
  const mixed = new Uint32Array(4)
  for (let offset = 0; offset < padded.length; offset += 16) {
    for (let word = 0; word < 4; word++) block[word] = view.getUint32(offset + 4 * word, true)
    philox4x32(block, key, mixed)
    key.set(mixed.subarray(0, 2))
  }
  return key
}

export class RandomStream {
  readonly #key: Uint32Array
  readonly #counter = new Uint32Array(4)
  readonly #block = new Uint32Array(4)
  #used = 4
  #spareNormal: number | undefined

  /** `purpose` keeps streams of one seed apart: a variable's name, `shuffle 3`. */
  constructor(seed: number, purpose: string) {
    this.#key = keyOf(seed, purpose)
  }

  uint32(): number {
    if (this.#used === 4) {
      philox4x32(this.#counter, this.#key, this.#block)
      const low = (this.#counter[0]! + 1) >>> 0
      this.#counter[0] = low
      if (low === 0) this.#counter[1] = this.#counter[1]! + 1
      this.#used = 0
    }
    return this.#block[this.#used++]!
  }

  /** Uniform in (0, 1), symmetric about ½, never an end: safe under a logarithm. */
  uniform(): number {
    return (this.uint32() + 0.5) / 2 ** 32
  }

  /** Uniform integer in [0, bound), without bias: words of the short last interval are drawn again. */
  below(bound: number): number {
    assert(Number.isInteger(bound) && bound > 0 && bound <= 2 ** 32, `bound ${bound}`)
    const limit = 2 ** 32 - (2 ** 32 % bound)
    let word = this.uint32()
    while (word >= limit) word = this.uint32()
    return word % bound
  }

  /** Standard normal: Box–Muller, the second of each pair kept. */
  normal(): number {
    if (this.#spareNormal !== undefined) {
      const spare = this.#spareNormal
      this.#spareNormal = undefined
      return spare
    }
    const radius = Math.sqrt(-2 * Math.log(this.uniform()))
    const angle = 2 * Math.PI * this.uniform()
    this.#spareNormal = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }

  /** The numbers 0 … length − 1 in random order (Fisher–Yates). */
  permutation(length: number): Uint32Array {
    const order = Uint32Array.from({ length }, (_, index) => index)
    for (let last = length - 1; last > 0; last--) {
      const other = this.below(last + 1)
      const moved = order[last]!
      order[last] = order[other]!
      order[other] = moved
    }
    return order
  }
}
