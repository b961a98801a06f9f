// SPDX-License-Identifier: Apache-2.0
/**
 * A set of tensors as bounded pieces on the wire: raw little-endian float32 or bfloat16 as in memory, so that every bit arrives as it was.
 * The receiver owns memory of its model's size beforehand and accepts nothing that does not continue where the last slice
 * ended; a peer cannot make it allocate, write elsewhere, or leave a gap.
 */
import assert from 'node:assert/strict'
import { endianness } from 'node:os'
import { fromBfloat16 } from '../models/bfloat16.ts'
import { FederationError } from './federation-error.ts'
import type { Manifest } from './manifest.ts'
import type { Values } from './tensor-set.ts'

assert.equal(endianness(), 'LE', 'Tensors travel as they lie in memory')

export interface TensorSlice {
  /** Index into the manifest. */
  readonly tensor: number
  /** First element. */
  readonly offset: number
  readonly values: Uint8Array
}

/** Of one message. Far smaller than the protocol allows: sending, receiving and checking overlap, in the memory that malloc keeps at hand. */
export const maxSliceBytes = 1 << 18

/** Groups of slices of at most `maxBytes` of values each; views of `sources`, valid as long as these are. */
export function* slicesOf(sources: readonly Values[], maxBytes = maxSliceBytes): Generator<TensorSlice[]> {
  assert(maxBytes >= 4)
  let group: TensorSlice[] = []
  let room = maxBytes
  for (const [tensor, source] of sources.entries()) {
    const { BYTES_PER_ELEMENT: bytesEach } = source
    for (let offset = 0; offset < source.length; ) {
      const elements = Math.min(Math.floor(room / bytesEach), source.length - offset)
      const start = source.byteOffset + offset * bytesEach
      group.push({ tensor, offset, values: new Uint8Array(source.buffer, start, elements * bytesEach) })
      offset += elements
      room -= elements * bytesEach
      if (room < 4) {
        yield group
        group = []
        room = maxBytes
      }
    }
  }
  if (group.length > 0) yield group
}

/** Judges values that have come: `first` is the index of the first of them in what `name` names. Throws to refuse. */
export type Inspection = (name: string, values: Values, first: number) => void

/** Puts slices where they belong. `targets` is memory by manifest index. */
export class Assembly {
  readonly #manifest: Manifest
  readonly #targets: readonly Values[]
  readonly #inspect: Inspection | undefined
  #tensor = 0
  #offset = 0

  constructor(manifest: Manifest, targets: readonly Values[], inspect?: Inspection) {
    assert.deepEqual(
      targets.map(({ length }) => length),
      manifest.map(({ elements }) => elements),
    )
    this.#manifest = manifest
    this.#targets = targets
    this.#inspect = inspect
    this.#skipComplete()
  }

  get complete(): boolean {
    return this.#tensor === this.#manifest.length
  }

  accept(slices: readonly TensorSlice[]): void {
    const hint = 'The peer does not follow the protocol: compare its version with ours.'
    for (const { tensor, offset, values } of slices) {
      const entry = this.#manifest[tensor]
      if (entry === undefined) {
        throw new FederationError('tensor-unknown', `expected a tensor below ${this.#manifest.length}, got ${tensor}`, {
          hint,
        })
      }
      const target = this.#targets[tensor]!
      const { BYTES_PER_ELEMENT: bytesEach } = target
      if (values.length === 0 || values.length % bytesEach !== 0) {
        throw new FederationError(
          'slice-malformed',
          `${entry.name}: expected a positive multiple of ${bytesEach} bytes, got ${values.length}`,
          { hint },
        )
      }
      const end = offset + values.length / bytesEach
      if (end > entry.elements) {
        throw new FederationError('tensor-too-long', `${entry.name}: expected ${entry.elements} values, got ${end}`, {
          hint,
        })
      }
      if (tensor !== this.#tensor || offset !== this.#offset) {
        const expected = this.complete ? 'nothing more' : `${this.#manifest[this.#tensor]?.name} from ${this.#offset}`
        throw new FederationError('slice-misplaced', `expected ${expected}, got ${entry.name} from ${offset}`, { hint })
      }
      new Uint8Array(target.buffer, target.byteOffset + offset * bytesEach, values.length).set(values)
      this.#inspect?.(entry.name, target.subarray(offset, end), offset)
      this.#offset = end
      this.#skipComplete()
    }
  }

  #skipComplete(): void {
    while (!this.complete && this.#offset === this.#manifest[this.#tensor]!.elements) {
      this.#tensor++
      this.#offset = 0
    }
  }
}

/** `first` is the index of the first value in its tensor. */
export function verifyFinite(name: string, values: Values, first: number): void {
  if (!(values instanceof Uint16Array ? isAnyHalfNotFinite(values) : isAnyNotFinite(values))) return
  const numbers = values instanceof Uint16Array ? fromBfloat16(values) : values
  const index = numbers.findIndex((value) => !Number.isFinite(value))
  throw new FederationError(
    'values-not-finite',
    `${name}: expected finite values, got ${numbers[index]} at ${first + index}`,
    { hint: 'Training diverged: lower the learning rate, lengthen the warm-up, or look for bad examples.' },
  )
}

function isAnyNotFinite(values: Float32Array): boolean {
  const words = new Int32Array(values.buffer, values.byteOffset, values.length)
  return overflowing(words, 0x7f80_0000, 0x0080_0000) < 0
}

function isAnyHalfNotFinite(halves: Uint16Array): boolean {
  const [exponent, one, sign] = [0x7f80, 0x0080, 0x8000]
  const isOver = (half: number | undefined): boolean => half !== undefined && (half & exponent) + one >= sign
  // Two in a word, where words begin; what is before and after by itself.
  const begin = (halves.byteOffset / 2) & 1
  const count = Math.max(0, halves.length - begin) >>> 1
  const words = new Int32Array(halves.buffer, halves.byteOffset + begin * 2, count)
  const pair = (half: number): number => (half << 16) | half
  const over = overflowing(words, pair(exponent), pair(one)) & pair(sign)
  return over !== 0 || isOver(halves[0]) || isOver(halves.at(-1))
}

/**
 * Sign bits of what is NaN or an infinity: of all exponents those alone are all ones, and reach the sign when one more is added. All that
 * workers push passes here: no branch for each value, and four words at a time that do not wait for each other.
 */
function overflowing(words: Int32Array, exponents: number, ones: number): number {
  let [a, b, c, d] = [0, 0, 0, 0]
  const whole = words.length & ~3
  for (let index = 0; index < whole; index += 4) {
    a |= (words[index]! & exponents) + ones
    b |= (words[index + 1]! & exponents) + ones
    c |= (words[index + 2]! & exponents) + ones
    d |= (words[index + 3]! & exponents) + ones
  }
  for (let index = whole; index < words.length; index++) a |= (words[index]! & exponents) + ones
  return a | b | c | d
}
