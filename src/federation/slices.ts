// SPDX-License-Identifier: Apache-2.0
/**
 * A set of tensors as bounded pieces on the wire: raw little-endian float32, so that every bit arrives as it was.
 * The receiver owns memory of its model's size beforehand and accepts nothing that does not continue where the last slice
 * ended; a peer cannot make it allocate, write elsewhere, or leave a gap.
 */
import assert from 'node:assert/strict'
import { endianness } from 'node:os'
import { FederationError } from './federation-error.ts'
import type { Manifest } from './manifest.ts'

assert.equal(endianness(), 'LE', 'Tensors travel as they lie in memory')

export interface TensorSlice {
  /** Index into the manifest. */
  readonly tensor: number
  /** First element. */
  readonly offset: number
  readonly values: Uint8Array
}

const bytesPerElement = 4
/** Of one message. Far smaller than the protocol allows: sending, receiving and checking overlap, in the memory that malloc keeps at hand. */
export const maxSliceBytes = 1 << 16

/** Groups of slices of at most `maxBytes` of values each; views of `sources`, valid as long as these are. */
export function* slicesOf(sources: readonly Float32Array[], maxBytes = maxSliceBytes): Generator<TensorSlice[]> {
  assert(maxBytes >= bytesPerElement)
  let group: TensorSlice[] = []
  let room = Math.floor(maxBytes / bytesPerElement)
  for (const [tensor, source] of sources.entries()) {
    for (let offset = 0; offset < source.length; ) {
      const elements = Math.min(room, source.length - offset)
      const start = source.byteOffset + offset * bytesPerElement
      group.push({ tensor, offset, values: new Uint8Array(source.buffer, start, elements * bytesPerElement) })
      offset += elements
      room -= elements
      if (room === 0) {
        yield group
        group = []
        room = Math.floor(maxBytes / bytesPerElement)
      }
    }
  }
  if (group.length > 0) yield group
}

/** Judges values that have come: `first` is the index of the first of them in what `name` names. Throws to refuse. */
export type Inspection = (name: string, values: Float32Array, first: number) => void

/** Puts slices where they belong. `targets` is memory by manifest index. */
export class Assembly {
  readonly #manifest: Manifest
  readonly #targets: readonly Float32Array[]
  readonly #inspect: Inspection | undefined
  #tensor = 0
  #offset = 0

  constructor(manifest: Manifest, targets: readonly Float32Array[], inspect?: Inspection) {
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
      if (values.length === 0 || values.length % bytesPerElement !== 0) {
        throw new FederationError(
          'slice-malformed',
          `${entry.name}: expected a positive multiple of ${bytesPerElement} bytes, got ${values.length}`,
          { hint },
        )
      }
      const end = offset + values.length / bytesPerElement
      if (end > entry.elements) {
        throw new FederationError('tensor-too-long', `${entry.name}: expected ${entry.elements} values, got ${end}`, {
          hint,
        })
      }
      if (tensor !== this.#tensor || offset !== this.#offset) {
        const expected = this.complete ? 'nothing more' : `${this.#manifest[this.#tensor]?.name} from ${this.#offset}`
        throw new FederationError('slice-misplaced', `expected ${expected}, got ${entry.name} from ${offset}`, { hint })
      }
      const target = this.#targets[tensor]!
      new Uint8Array(target.buffer, target.byteOffset + offset * bytesPerElement, values.length).set(values)
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
export function verifyFinite(name: string, values: Float32Array, first: number): void {
  if (!isAnyNotFinite(values)) return
  const index = values.findIndex((value) => !Number.isFinite(value))
  throw new FederationError(
    'values-not-finite',
    `${name}: expected finite values, got ${values[index]} at ${first + index}`,
    { hint: 'Training diverged: lower the learning rate, lengthen the warm-up, or look for bad examples.' },
  )
}

/**
 * Whether one is NaN or an infinity. All that workers push passes here: no branch for each value, and four sums that do not
 * wait for each other.
 */
function isAnyNotFinite(values: Float32Array): boolean {
  // A finite number times zero is a zero; NaN and infinities give NaN, which stays.
  let [a, b, c, d] = [0, 0, 0, 0]
  const whole = values.length - (values.length % 4)
  for (let index = 0; index < whole; index += 4) {
    a += values[index]! * 0
    b += values[index + 1]! * 0
    c += values[index + 2]! * 0
    d += values[index + 3]! * 0
  }
  for (let index = whole; index < values.length; index++) a += values[index]! * 0
  return Number.isNaN(a + b + c + d)
}
