// SPDX-License-Identifier: Apache-2.0
/**
 * Some rows of an embedding table on their way to or from a checkpoint, with the optimizer's slots beside each row's value
 * (docs/storage-format.md, "Blocks of rows"). Blocks reach this code from our own memory or out of a sealed file; the
 * bounds are checked all the same before memory is taken.
 */
import assert from 'node:assert/strict'
import type { ByteReader } from './byte-reader.ts'
import { StorageError } from './storage-error.ts'

/** Rows of a table on their way to or from a file. */
export interface RowsBlock {
  readonly table: string
  readonly width: number
  /** Names of the optimizer's slots, in the order in which they stand behind a row's value. */
  readonly slots: readonly string[]
  /** Of `maxBlockRows` rows at most; no id twice. */
  readonly ids: Uint32Array
  /** For each id the value and then each slot, `width` numbers each. */
  readonly values: Float32Array
}

export const maxBlockRows = 8192
export const maxBlockBytes = 256 << 20
const maxDescriptionBytes = 64 << 10

/** Numbers that a row takes in `values`. */
export function rowNumbers({ width, slots }: Pick<RowsBlock, 'width' | 'slots'>): number {
  return width * (1 + slots.length)
}

/** The block's bytes in order: views of it, not copies. */
export function encodeRowsBlock(block: RowsBlock): Uint8Array[] {
  const { table, width, slots, ids, values } = block
  assert(ids.length <= maxBlockRows, `a block of ${ids.length} rows`)
  assert.equal(values.length, ids.length * rowNumbers(block), `values of ${ids.length} rows of ${table}`)
  assert(values.byteLength <= maxBlockBytes, `a block of ${values.byteLength} bytes`)
  const description = Buffer.from(JSON.stringify({ table, width, slots, rows: ids.length }))
  assert(description.length <= maxDescriptionBytes, `a description of ${description.length} bytes`)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(description.length)
  return [length, description, bytesOf(ids), bytesOf(values)]
}

/** The next block, or nothing at the end. */
export async function readRowsBlock(reader: ByteReader): Promise<RowsBlock | undefined> {
  if (await reader.atEnd()) return undefined
  const length = (await reader.take(4)).readUInt32LE()
  if (length > maxDescriptionBytes) throw malformed(`a description of at most ${maxDescriptionBytes} bytes`, length)
  const { rows, ...block } = parseDescription((await reader.take(length)).toString())
  const ids = new Uint32Array(rows)
  await reader.fill(bytesOf(ids))
  const values = new Float32Array(rows * rowNumbers(block))
  await reader.fill(bytesOf(values))
  return { ...block, ids, values }
}

function parseDescription(json: string): Pick<RowsBlock, 'table' | 'width' | 'slots'> & { rows: number } {
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch (cause) {
    throw malformed('a description in JSON', 'something else', cause)
  }
  const { table, width, slots, rows } = Object(parsed) as Record<string, unknown>
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
  if (typeof table !== 'string') throw malformed('the name of a table', typeof table)
  if (!isCount(width) || !isCount(rows)) throw malformed('a width and a number of rows', `${width} and ${rows}`)
  if (!Array.isArray(slots) || !slots.every((slot) => typeof slot === 'string'))
    throw malformed('names of slots', slots)
  if (rows > maxBlockRows) throw malformed(`at most ${maxBlockRows} rows`, rows)
  const bytes = rows * rowNumbers({ width, slots }) * Float32Array.BYTES_PER_ELEMENT
  if (bytes > maxBlockBytes) throw malformed(`at most ${maxBlockBytes} bytes of values`, bytes)
  return { table, width, slots, rows }
}

/** A view of the same memory; all machines that have SGX are little-endian. */
export function bytesOf(array: Float32Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}

function malformed(expected: string, got: unknown, cause?: unknown): StorageError {
  return new StorageError('checkpoint-malformed', `rows: expected ${expected}, got ${String(got)}`, {
    hint: 'It was sealed by another version of this software: go on with that version, or begin anew elsewhere.',
    cause,
  })
}
