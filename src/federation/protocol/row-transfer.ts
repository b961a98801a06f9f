// SPDX-License-Identifier: Apache-2.0
/**
 * Rows on the wire: which ones (ids, ascending, each once, so that a repeated id cannot be said) and their values, whole rows
 * in that order. The receiver knows beforehand how many there are and owns the memory; nothing else is accepted.
 */
import assert from 'node:assert/strict'
import { FederationError } from '../federation-error.ts'
import { verifyRowIds } from '../placement.ts'
import type { TableSpec } from '../row-initializer.ts'
import { type Inspection, maxSliceBytes } from '../slices.ts'
import type { Values } from '../tensor-set.ts'

/** Of one pull, over all tables: bounds what a worker can make a server hold. */
export const maxRowsPerPull = 1 << 20
const bytesPerId = 4

export interface RowIdsPart {
  readonly table: number
  readonly ids: Uint8Array
}

/** Ids of every table, in bounded parts; views of `ids`. */
export function* rowIdParts(ids: readonly Uint32Array[]): Generator<RowIdsPart> {
  for (const [table, all] of ids.entries()) {
    const bytes = new Uint8Array(all.buffer, all.byteOffset, all.byteLength)
    for (let first = 0; first < bytes.length; first += maxSliceBytes) {
      yield { table, ids: bytes.subarray(first, first + maxSliceBytes) }
    }
  }
}

/** Gathers the ids of one pull from server `server` of `servers`. */
export class RowIdAssembly {
  readonly ids: readonly Uint32Array[]
  readonly #tables: readonly TableSpec[]
  readonly #place: { readonly server: number; readonly servers: number }
  #table = 0
  #row = 0

  constructor(
    tables: readonly TableSpec[],
    counts: readonly number[],
    place: { readonly server: number; readonly servers: number },
  ) {
    if (counts.length !== tables.length) throw malformed(`row counts of ${tables.length} tables`, `${counts.length}`)
    const total = counts.reduce((sum, count) => sum + count, 0)
    if (total > maxRowsPerPull) throw malformed(`at most ${maxRowsPerPull} rows in one pull`, `${total}`)
    this.#tables = tables
    this.#place = place
    this.ids = counts.map((count) => new Uint32Array(count))
    this.#skipComplete()
  }

  get complete(): boolean {
    return this.#table === this.#tables.length
  }

  accept({ table, ids }: RowIdsPart): void {
    const target = this.ids[table]
    if (target === undefined || table !== this.#table) throw malformed(`ids of table ${this.#table}`, `${table}`)
    const count = ids.length / bytesPerId
    if (count === 0 || !Number.isInteger(count) || this.#row + count > target.length) {
      throw malformed(`at most ${target.length - this.#row} whole ids`, `${ids.length} bytes`)
    }
    new Uint8Array(target.buffer, this.#row * bytesPerId, ids.length).set(ids)
    this.#row += count
    if (this.#row === target.length) {
      verifyRowIds(this.#tables[table]!, target, this.#place.server, this.#place.servers)
    }
    this.#skipComplete()
  }

  #skipComplete(): void {
    while (!this.complete && this.#row === this.ids[this.#table]!.length) {
      this.#table++
      this.#row = 0
    }
  }
}

export interface RowsPart {
  readonly table: number
  readonly first: number
  readonly values: Uint8Array
}

/** Rows of every table in bounded parts; views of `sources`, which hold `counts[table]` rows each. */
export function* rowParts(
  tables: readonly TableSpec[],
  counts: readonly number[],
  sources: readonly Values[],
): Generator<RowsPart> {
  for (const [table, source] of sources.entries()) {
    const rowBytes = tables[table]!.width * source.BYTES_PER_ELEMENT
    const rowsAtOnce = Math.max(1, Math.floor(maxSliceBytes / rowBytes))
    const count = counts[table]!
    for (let first = 0; first < count; first += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, count - first)
      const start = source.byteOffset + first * rowBytes
      yield { table, first, values: new Uint8Array(source.buffer, start, rows * rowBytes) }
    }
  }
}

/** Puts rows where they belong: `targets[table]` holds at least `counts[table]` rows. */
export class RowAssembly {
  readonly #tables: readonly TableSpec[]
  readonly #counts: readonly number[]
  readonly #targets: readonly Values[]
  readonly #inspect: Inspection | undefined
  #table = 0
  #row = 0

  constructor(
    tables: readonly TableSpec[],
    counts: readonly number[],
    targets: readonly Values[],
    inspect?: Inspection,
  ) {
    for (const [table, count] of counts.entries()) {
      assert(targets[table]!.length >= count * tables[table]!.width)
    }
    this.#tables = tables
    this.#counts = counts
    this.#targets = targets
    this.#inspect = inspect
    this.#skipComplete()
  }

  get complete(): boolean {
    return this.#table === this.#tables.length
  }

  accept({ table, first, values }: RowsPart): void {
    if (this.complete || table !== this.#table || first !== this.#row) {
      const expected = this.complete ? 'no more rows' : `rows of table ${this.#table} from ${this.#row}`
      throw malformed(expected, `table ${table} from ${first}`)
    }
    const { name, width } = this.#tables[table]!
    const target = this.#targets[table]!
    const { BYTES_PER_ELEMENT: bytesEach } = target
    const rows = values.length / bytesEach / width
    const left = this.#counts[table]! - first
    if (rows === 0 || !Number.isInteger(rows) || rows > left) {
      throw malformed(`${name}: at most ${left} whole rows`, `${values.length} bytes`)
    }
    const start = first * width
    new Uint8Array(target.buffer, target.byteOffset + start * bytesEach, values.length).set(values)
    this.#inspect?.(name, target.subarray(start, start + rows * width), start)
    this.#row += rows
    this.#skipComplete()
  }

  #skipComplete(): void {
    while (!this.complete && this.#row === this.#counts[this.#table]!) {
      this.#table++
      this.#row = 0
    }
  }
}

function malformed(expected: string, got: string): FederationError {
  return new FederationError('rows-malformed', `expected ${expected}, got ${got}`, {
    hint: 'The peer does not follow the protocol: compare its version with ours.',
  })
}
