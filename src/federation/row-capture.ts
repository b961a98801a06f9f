// SPDX-License-Identifier: Apache-2.0
/**
 * The rows of a table that had changed at one moment, with the values of that moment, while training goes on: a row is
 * copied when its turn comes or when it is about to change, whichever is first, and nothing else is. What a checkpoint costs
 * in memory is the blocks under way and the rows that changed since it began, which are given out first.
 */
import assert from 'node:assert/strict'
import type { RowsBlock } from '../storage/rows-block.ts'

/** One bit a place, in pieces as large as a slab's rows; a piece is there when a bit of it is set. */
export type PlaceSet = (Uint32Array | undefined)[]

export interface RowSource {
  readonly placesPerPiece: number
  /** Numbers of one row with its slots. */
  readonly stride: number
  readonly description: Pick<RowsBlock, 'table' | 'width' | 'slots'>
  idAt(place: number): number
  /** The row as it is now, to `out` from `first` on. */
  copy(place: number, out: Float32Array, first: number): void
}

const maxBlockRows = 8192
const maxBlockNumbers = 2 ** 20

/** Gathers rows to blocks. */
class BlockWriter {
  readonly #source: RowSource
  readonly #capacity: number
  #ids: Uint32Array | undefined
  #values = new Float32Array()
  #count = 0

  constructor(source: RowSource) {
    this.#source = source
    this.#capacity = Math.max(1, Math.min(maxBlockRows, Math.floor(maxBlockNumbers / source.stride)))
  }

  /** A block when this row fills one. */
  add(place: number): RowsBlock | undefined {
    const { stride } = this.#source
    if (this.#ids === undefined) {
      this.#ids = new Uint32Array(this.#capacity)
      this.#values = new Float32Array(this.#capacity * stride)
    }
    this.#ids[this.#count] = this.#source.idAt(place)
    this.#source.copy(place, this.#values, this.#count * stride)
    this.#count++
    return this.#count === this.#capacity ? this.take() : undefined
  }

  /** What there is, if anything. */
  take(): RowsBlock | undefined {
    if (this.#ids === undefined) return undefined
    const { stride, description } = this.#source
    const ids = this.#ids.subarray(0, this.#count)
    const values = this.#values.subarray(0, this.#count * stride)
    this.#ids = undefined
    this.#count = 0
    return { ...description, ids, values }
  }
}

export class RowCapture {
  readonly #source: RowSource
  /** Not copied yet. */
  readonly #pending: PlaceSet
  readonly #kept: BlockWriter
  readonly #full: RowsBlock[] = []

  /** Takes over `places`. */
  constructor(source: RowSource, places: PlaceSet) {
    this.#source = source
    this.#pending = places
    this.#kept = new BlockWriter(source)
  }

  /** To be called before the row at `place` changes. */
  keep(place: number): void {
    const piece = Math.floor(place / this.#source.placesPerPiece)
    const bits = this.#pending[piece]
    if (bits === undefined || !clear(bits, place % this.#source.placesPerPiece)) return
    const block = this.#kept.add(place)
    if (block !== undefined) this.#full.push(block)
  }

  /** Each row once, in no order. Training may go on between two blocks. */
  *blocks(): Generator<RowsBlock> {
    const writer = new BlockWriter(this.#source)
    for (let piece = 0; piece < this.#pending.length; piece++) {
      const bits = this.#pending[piece]
      if (bits === undefined) continue
      for (let word = 0; word < bits.length; word++) {
        while (bits[word] !== 0) {
          const row = word * 32 + 31 - Math.clz32(bits[word]!)
          clear(bits, row)
          const block = writer.add(piece * this.#source.placesPerPiece + row)
          if (block === undefined) continue
          yield block
          while (this.#full.length > 0) yield this.#full.shift()!
        }
      }
      this.#pending[piece] = undefined
    }
    yield* this.#full.splice(0)
    for (const block of [writer.take(), this.#kept.take()]) if (block !== undefined) yield block
  }
}

export function* placesIn(places: PlaceSet, placesPerPiece: number): Generator<number> {
  for (const [piece, bits] of places.entries()) {
    if (bits === undefined) continue
    for (const [word, set] of bits.entries()) {
      for (let rest = set; rest !== 0; rest = (rest & (rest - 1)) >>> 0) {
        yield piece * placesPerPiece + word * 32 + 31 - Math.clz32(rest & -rest)
      }
    }
  }
}

/** True when the bit was set. */
function clear(bits: Uint32Array, row: number): boolean {
  const mask = 1 << (row & 31)
  const word = bits[row >>> 5]
  assert(word !== undefined)
  if ((word & mask) === 0) return false
  bits[row >>> 5] = word & ~mask
  return true
}
