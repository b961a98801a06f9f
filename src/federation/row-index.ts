// SPDX-License-Identifier: Apache-2.0
/**
 * Numbers the row ids of a table as they come: id ↔ place, 0 for the first. Ids are few of many, so places are found by open
 * addressing (Knuth, The Art of Computer Programming 3, 6.4, algorithm L) in many small segments that grow one at a time and
 * by a quarter: at 30 million rows about 10 bytes a row, and no pause or peak for a second copy of the whole.
 */
import assert from 'node:assert/strict'
import { mix32 } from './mix32.ts'

export const absent = -1

const rowsPerSegment = 4096
const maxSegmentBits = 13
const firstCapacity = 16
const greatestLoad = 0.8
const growth = 1.25
/** Memory that is far away is asked for this many ids at a time, and used when it has come. */
const idsAhead = 64
const chunkBits = 16
const chunkMask = 2 ** chunkBits - 1

/**
 * An entry of a segment is 0, or in its low bits place + 1 and above these a fingerprint of the id, so that only one probe
 * in many goes to memory for an id that is another one.
 */
export class RowIndex {
  readonly #placeMask: number
  readonly #segmentBits: number
  readonly #segments: Int32Array[]
  readonly #counts: Uint32Array
  /** By place, in chunks that stay where they are. */
  readonly #ids: Uint32Array[] = []
  #size = 0

  constructor(maximumRows: number) {
    assert(Number.isInteger(maximumRows) && maximumRows > 0 && maximumRows < 2 ** 31, `${maximumRows} rows`)
    this.#placeMask = 2 ** (32 - Math.clz32(maximumRows)) - 1
    const wanted = Math.ceil(Math.log2(maximumRows / rowsPerSegment))
    this.#segmentBits = Math.min(maxSegmentBits, Math.max(1, wanted))
    this.#segments = Array.from({ length: 2 ** this.#segmentBits }, () => new Int32Array(firstCapacity))
    this.#counts = new Uint32Array(this.#segments.length)
  }

  get size(): number {
    return this.#size
  }

  idAt(place: number): number {
    return this.#ids[place >>> chunkBits]![place & chunkMask]!
  }

  /** The place of `id`, or `absent`. */
  placeOf(id: number): number {
    const hash = mix32(id)
    const mask = this.#placeMask
    const fingerprint = fingerprintOf(id)
    const segment = this.#segments[hash >>> (32 - this.#segmentBits)]!
    for (let at = this.#start(hash, segment.length); ; at = at + 1 === segment.length ? 0 : at + 1) {
      const entry = segment[at]!
      if (entry === 0) return absent
      if (((entry ^ fingerprint) & ~mask) !== 0) continue
      const place = (entry & mask) - 1
      if (this.#ids[place >>> chunkBits]![place & chunkMask] === id) return place
    }
  }

  /** The places of many ids, to `out`. */
  placesOf(ids: Uint32Array, out: Int32Array): void {
    for (let first = 0; first < ids.length; first += idsAhead) {
      const end = Math.min(ids.length, first + idsAhead)
      for (let at = first; at < end; at++) out[at] = this.#firstGuess(ids[at]!)
      // Most guesses are right, so that the ids that they are compared with are asked for many at a time too.
      for (let at = first; at < end; at++) {
        const guess = out[at]!
        if (guess === absent || this.idAt(guess) !== ids[at]) out[at] = this.placeOf(ids[at]!)
      }
    }
  }

  #firstGuess(id: number): number {
    const hash = mix32(id)
    const segment = this.#segments[hash >>> (32 - this.#segmentBits)]!
    return (segment[this.#start(hash, segment.length)]! & this.#placeMask) - 1
  }

  /** The next place, for an id that has none. */
  add(id: number): number {
    const place = this.#size
    assert(place < this.#placeMask)
    this.#size++
    if ((place & chunkMask) === 0) this.#ids.push(new Uint32Array(2 ** chunkBits))
    this.#ids[place >>> chunkBits]![place & chunkMask] = id
    const hash = mix32(id)
    const number = hash >>> (32 - this.#segmentBits)
    this.#counts[number]!++
    if (this.#counts[number]! > this.#segments[number]!.length * greatestLoad) this.#grow(number)
    this.#insert(this.#segments[number]!, hash, id, place)
    return place
  }

  #start(hash: number, capacity: number): number {
    return Math.floor((((hash << this.#segmentBits) >>> 0) * capacity) / 2 ** 32)
  }

  #insert(segment: Int32Array, hash: number, id: number, place: number): void {
    let at = this.#start(hash, segment.length)
    while (segment[at] !== 0) at = at + 1 === segment.length ? 0 : at + 1
    segment[at] = (fingerprintOf(id) & ~this.#placeMask) | (place + 1)
  }

  #grow(number: number): void {
    const segment = this.#segments[number]!
    const grown = new Int32Array(Math.ceil(segment.length * growth))
    for (const entry of segment) {
      if (entry === 0) continue
      const place = (entry & this.#placeMask) - 1
      const id = this.idAt(place)
      this.#insert(grown, mix32(id), id, place)
    }
    this.#segments[number] = grown
  }
}

/** Its high bits, by Knuth's multiplicative hashing: unlike those of mix32. */
function fingerprintOf(id: number): number {
  return Math.imul(id, 0x9e3779b1)
}
