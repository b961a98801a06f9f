// SPDX-License-Identifier: Apache-2.0
/**
 * What workers contribute and what they get back, in chunks that stand for themselves. A chunk is a kind, one byte, and:
 * sums (0): of each integer column the number of rows that have it, their sum and the sum of their squares, float64 each;
 * values (1): a column, one byte, then pairs of varints: how much above the one before a value is, how many rows have it;
 * statistics (2): of each integer column mean and standard deviation, float64;
 * vocabulary (3): a column, one byte, then varints: how much above the one before a value is.
 * Numbers are little-endian. Values of a column ascend strictly, through all its chunks. A peer's chunk is hostile: whatever is not
 * exactly so is refused.
 */
import { DataError } from '../dataset.ts'
import { categoryColumns, integerColumns } from './criteo-line.ts'

export const chunkKind = { sums: 0, values: 1, statistics: 2, vocabulary: 3 } as const
/** Under 1 MiB, whatever the values: two varints of five bytes each. */
export const valuesPerChunk = 100_000

type Malformed = 'contribution-malformed' | 'preparation-malformed'

export function malformed(code: Malformed, message: string): DataError {
  const [what, hint] =
    code === 'contribution-malformed'
      ? ['contribution of a worker', 'the worker runs other code, or is hostile: look at its policy and version']
      : ['what the workers agreed on', 'the server runs other code than this worker: look at its policy and version']
  return new DataError(code, `${what}: ${message}`, { hint })
}

export function floatsChunk(kind: number, floats: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(1 + floats.length * 8)
  bytes[0] = kind
  for (const [index, float] of floats.entries()) bytes.writeDoubleLE(float, 1 + 8 * index)
  return bytes
}

/** `perColumn` finite numbers of each integer column. */
export function readFloats(chunk: Uint8Array, perColumn: number, code: Malformed): number[][] {
  const expected = 1 + integerColumns * perColumn * 8
  if (chunk.length !== expected) throw malformed(code, `expected ${expected} bytes, got ${chunk.length}`)
  const view = new DataView(chunk.buffer, chunk.byteOffset)
  return Array.from({ length: integerColumns }, (_, column) =>
    Array.from({ length: perColumn }, (_, index) => {
      const float = view.getFloat64(1 + 8 * (column * perColumn + index), true)
      if (!Number.isFinite(float)) throw malformed(code, `column ${column}: expected finite numbers, got ${float}`)
      return float
    }),
  )
}

/** Chunks of ascending values, with `countOf` each if it is given. */
export function* valueChunks(
  column: number,
  values: Uint32Array,
  countOf?: (value: number) => number,
): Generator<Uint8Array> {
  const bytes = new Uint8Array(2 + 10 * Math.min(values.length, valuesPerChunk))
  let previous = -1
  for (let first = 0; first < values.length; first += valuesPerChunk) {
    bytes[0] = countOf ? chunkKind.values : chunkKind.vocabulary
    bytes[1] = column
    let at = 2
    for (const value of values.subarray(first, first + valuesPerChunk)) {
      at = writeVarint(bytes, at, value - previous - 1)
      if (countOf) at = writeVarint(bytes, at, countOf(value))
      previous = value
    }
    yield bytes.slice(0, at)
  }
}

/** The column of a chunk of values, which must not lie before `least`. */
export function columnOf(chunk: Uint8Array, least: number, code: Malformed): number {
  const column = chunk[1]
  if (column === undefined || column < least || column >= categoryColumns) {
    throw malformed(code, `expected a column from ${least} to ${categoryColumns - 1}, got ${column}`)
  }
  return column
}

/** Calls `take` for each value of a chunk; returns the last. `previous` is −1 before the first chunk of a column. */
export function readValues(
  chunk: Uint8Array,
  previous: number,
  withCounts: boolean,
  code: Malformed,
  take: (value: number, count: number) => void,
): number {
  let at = 2
  let last = previous
  const varint = (): number => {
    let number = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = chunk[at++]
      if (byte === undefined || scale > 2 ** 28) throw malformed(code, 'expected whole numbers of 32 bits')
      number += (byte & 127) * scale
      if (byte < 128) {
        if (number > 0xffffffff || (byte === 0 && scale > 1)) throw malformed(code, 'expected numbers in 32 bits')
        return number
      }
    }
  }
  while (at < chunk.length) {
    last += varint() + 1
    if (last > 0xffffffff) throw malformed(code, 'expected values of 32 bits')
    const count = withCounts ? varint() : 1
    if (count === 0) throw malformed(code, 'expected values that occur, got a count of 0')
    take(last, count)
  }
  return last
}

function writeVarint(bytes: Uint8Array, at: number, number: number): number {
  let rest = number
  let place = at
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes[place++] = (rest % 128) | 128
  bytes[place] = rest
  return place + 1
}
