// SPDX-License-Identifier: Apache-2.0
/**
 * One server's rows of an embedding table. A row is made when training first touches it; memory grows with the rows there
 * are, slab by slab, up to a bound, and nothing that was allocated is ever copied or moved. Each row's optimizer state lies
 * behind its value: one stretch of memory is all that an update of it touches.
 */
import assert from 'node:assert/strict'
import type { RowsBlock } from '../storage/rows-block.ts'
import { FederationError } from './federation-error.ts'
import { type PlaceSet, placesIn, RowCapture } from './row-capture.ts'
import { absent, RowIndex } from './row-index.ts'
import { RowInitializer, rowOutOfRange, type TableSpec } from './row-initializer.ts'

export interface EmbeddingTableOptions {
  readonly spec: TableSpec
  /** Of the job. */
  readonly seed: number
  /** The optimizer's, with their initial values. */
  readonly slots: Readonly<Record<string, number>>
  /** That this server may hold. */
  readonly maximumRows: number
}

/** Rows for a checkpoint, as they were when it was made. One of a table at a time, until `commit` or `cancel`. */
export interface Capture {
  readonly rows: number
  /** Each row once, in no order. */
  blocks(): Generator<RowsBlock>
  /** They are saved: only what changes from the capture on is in the next one. */
  commit(): void
  /** They are not saved: the next capture has them again. */
  cancel(): void
}

const rowsAhead = 64
const maxSlabNumbers = 2 ** 21
const leastSlabBits = 5

export class EmbeddingTable {
  readonly spec: TableSpec
  readonly slotNames: readonly string[]
  readonly #slotValues: readonly number[]
  readonly #maximumRows: number
  /** Numbers of one row: value, then each slot. */
  readonly #stride: number
  /** Rows of a slab are a power of two: a place is its slab's number and, in the low bits, its row there. */
  readonly #slabBits: number
  readonly #slabRows: number
  readonly #rowMask: number
  readonly #slabs: Float32Array[] = []
  readonly #index: RowIndex
  readonly #initializer: RowInitializer
  /** By place: changed since the last capture. */
  #changed: PlaceSet = []
  #changedCount = 0
  /** Kept, so that the loop that only reads is not optimised away. */
  #asked = 0
  #capture: RowCapture | undefined

  constructor({ spec, seed, slots, maximumRows }: EmbeddingTableOptions) {
    assert(Number.isInteger(spec.rows) && spec.rows > 0 && spec.rows <= 2 ** 32, `${spec.rows} rows`)
    this.spec = spec
    this.slotNames = Object.keys(slots)
    this.#slotValues = Object.values(slots)
    this.#maximumRows = Math.min(maximumRows, spec.rows, 2 ** 31 - 1)
    this.#stride = spec.width * (1 + this.slotNames.length)
    const wanted = Math.ceil(Math.log2(this.#maximumRows))
    this.#slabBits = Math.max(leastSlabBits, Math.min(wanted, Math.floor(Math.log2(maxSlabNumbers / this.#stride))))
    this.#slabRows = 2 ** this.#slabBits
    this.#rowMask = this.#slabRows - 1
    this.#index = new RowIndex(this.#maximumRows)
    this.#initializer = new RowInitializer(spec, seed)
  }

  /** Rows that exist. */
  get size(): number {
    return this.#index.size
  }

  /** Rows that the next capture will have. */
  get changedRows(): number {
    return this.#changedCount
  }

  /**
   * Values of these rows one behind the other. What does not exist is made, or only told as it would begin. Returns where
   * the rows lie, `absent` where they do not.
   */
  gather(ids: Uint32Array, out: Float32Array, { create }: { readonly create: boolean }): Int32Array {
    assert.equal(out.length, ids.length * this.spec.width)
    const places = create ? this.places(ids) : this.#find(ids)
    for (let row = 0; row < ids.length; row++) {
      if (places[row] === absent) this.#initializer.fill(ids[row]!, out, row * this.spec.width)
    }
    this.read(places, [out])
    return places
  }

  /** Where rows lie, for good: for `read` and `write`. Makes those that do not exist, or none when not all fit. */
  places(ids: Uint32Array): Int32Array {
    const places = this.#find(ids)
    let missing = 0
    for (const place of places) if (place === absent) missing++
    if (missing === 0) return places
    if (this.size + missing > this.#maximumRows) {
      throw new FederationError(
        'table-full',
        `${this.spec.name}: expected at most ${this.#maximumRows} rows, got ${missing} new ones beside ${this.size}`,
        { hint: 'Raise tables.maximumRows where the server has the memory, add servers, or take fewer categories.' },
      )
    }
    for (let row = 0; row < ids.length; row++) if (places[row] === absent) places[row] = this.#create(ids[row]!)
    return places
  }

  /** Values to the first part, each slot to the next ones, as many as there are; `absent` places are passed over. */
  read(places: Int32Array, parts: readonly Float32Array[]): void {
    const { width } = this.spec
    for (let first = 0; first < places.length; first += rowsAhead) {
      const last = Math.min(places.length, first + rowsAhead)
      this.#ask(places, first, last)
      for (let row = first; row < last; row++) {
        const place = places[row]!
        if (place === absent) continue
        const slab = this.#slabs[place >>> this.#slabBits]!
        let from = this.#first(place)
        for (const part of parts) {
          const end = (row + 1) * width
          for (let to = row * width; to < end; ) part[to++] = slab[from++]!
        }
      }
    }
  }

  /** The reverse of `read`, with all slots. */
  write(places: Int32Array, parts: readonly Float32Array[]): void {
    assert.equal(parts.length, 1 + this.slotNames.length)
    const { width } = this.spec
    for (let first = 0; first < places.length; first += rowsAhead) {
      const last = Math.min(places.length, first + rowsAhead)
      this.#ask(places, first, last)
      for (let row = first; row < last; row++) {
        const place = places[row]!
        assert(place !== absent)
        this.#capture?.keep(place)
        this.#mark(place)
        const slab = this.#slabs[place >>> this.#slabBits]!
        let to = this.#first(place)
        for (const part of parts) {
          const end = (row + 1) * width
          for (let from = row * width; from < end; ) slab[to++] = part[from++]!
        }
      }
    }
  }

  /**
   * Rows of a large table are each in a memory page of their own, and fetching one takes longer than copying it. Asked for in
   * a loop that does nothing else, many are fetched at once.
   */
  #ask(places: Int32Array, first: number, last: number): void {
    let sum = 0
    for (let row = first; row < last; row++) {
      const place = places[row]!
      if (place !== absent) sum += this.#slabs[place >>> this.#slabBits]![this.#first(place)]!
    }
    this.#asked += sum
  }

  /** Rows that were written since the last capture. A row that was only made is none of them: it can be made again. */
  capture(): Capture {
    assert(this.#capture === undefined, 'one capture at a time')
    const taken = this.#changed
    const rows = this.#changedCount
    const capture = this.#captureOf(taken.map((bits) => bits?.slice()))
    this.#capture = capture
    this.#changed = []
    this.#changedCount = 0
    const close = (): void => {
      assert(this.#capture === capture)
      this.#capture = undefined
    }
    return {
      rows,
      blocks: () => capture.blocks(),
      commit: close,
      cancel: () => {
        close()
        for (const place of placesIn(taken, this.#slabRows)) this.#mark(place)
      },
    }
  }

  /** Every row that exists, for an export; nothing may be written before the end. */
  all(): Generator<RowsBlock> {
    const words = this.#slabRows / 32
    const places: PlaceSet = this.#slabs.map((_, slab) => {
      const bits = new Uint32Array(words)
      const rows = Math.min(this.size - slab * this.#slabRows, this.#slabRows)
      bits.fill(0xffff_ffff, 0, rows >>> 5)
      if (rows % 32 > 0) bits[rows >>> 5] = 2 ** (rows % 32) - 1
      return bits
    })
    return this.#captureOf(places).blocks()
  }

  /** Rows as they were saved, instead of what is there; they do not count as changed. */
  load({ table, width, slots, ids, values }: RowsBlock): void {
    const expected = `${this.spec.name}, width ${this.spec.width}, slots [${this.slotNames}]`
    const got = `${table}, width ${width}, slots [${slots}]`
    const hint = 'The rows were saved by another job, model or optimizer.'
    if (got !== expected)
      throw new FederationError('table-mismatch', `expected rows of ${expected}, got ${got}`, { hint })
    assert.equal(values.length, ids.length * this.#stride)
    assert(this.#capture === undefined && this.#changedCount === 0, 'rows are loaded before training')
    for (const id of ids) if (id >= this.spec.rows) throw rowOutOfRange(this.spec, id)
    const places = this.places(ids)
    for (let row = 0; row < places.length; row++) {
      const slab = this.#slabs[places[row]! >>> this.#slabBits]!
      const to = this.#first(places[row]!)
      for (let part = 0; part < this.#stride; part++) slab[to + part] = values[row * this.#stride + part]!
    }
  }

  #find(ids: Uint32Array): Int32Array {
    const places = new Int32Array(ids.length)
    this.#index.placesOf(ids, places)
    return places
  }

  #create(id: number): number {
    // An id may be asked for twice at once.
    const known = this.#index.placeOf(id)
    if (known !== absent) return known
    const place = this.#index.add(id)
    if (place >>> this.#slabBits === this.#slabs.length) {
      this.#slabs.push(new Float32Array(this.#slabRows * this.#stride))
    }
    const slab = this.#slabs[place >>> this.#slabBits]!
    const first = this.#first(place)
    const { width } = this.spec
    this.#initializer.fill(id, slab, first)
    for (const [slot, value] of this.#slotValues.entries()) {
      slab.fill(value, first + (slot + 1) * width, first + (slot + 2) * width)
    }
    return place
  }

  /** Where in its slab the row begins. */
  #first(place: number): number {
    return (place & this.#rowMask) * this.#stride
  }

  #mark(place: number): void {
    const slab = place >>> this.#slabBits
    let bits = this.#changed[slab]
    if (bits === undefined) {
      bits = new Uint32Array(this.#slabRows / 32)
      this.#changed[slab] = bits
    }
    const row = place & this.#rowMask
    const word = bits[row >>> 5]!
    const marked = word | (1 << (row & 31))
    if (marked === (word | 0)) return
    bits[row >>> 5] = marked
    this.#changedCount++
  }

  #captureOf(places: PlaceSet): RowCapture {
    const stride = this.#stride
    return new RowCapture(
      {
        placesPerPiece: this.#slabRows,
        stride,
        description: { table: this.spec.name, width: this.spec.width, slots: this.slotNames },
        idAt: (place) => this.#index.idAt(place),
        copy: (place, out, first) => {
          const slab = this.#slabs[place >>> this.#slabBits]!
          const from = this.#first(place)
          for (let index = 0; index < stride; index++) out[first + index] = slab[from + index]!
        },
      },
      places,
    )
  }
}
