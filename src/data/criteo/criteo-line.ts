// SPDX-License-Identifier: Apache-2.0
/**
 * One line of Criteo's format (Display Advertising Challenge, 2014): label, 13 integers, 26 hexadecimal categories, separated by
 * tabs; all but the label may be empty. Everything in it is hostile: a line is taken only if every byte of it is expected, and what
 * is wrong with another is told without repeating any of it.
 */

export const integerColumns = 13
export const categoryColumns = 26
const columns = 1 + integerColumns + categoryColumns

/** A row in memory and in the cache: one word of flags, the integers, the categories. */
export const rowWords = 1 + integerColumns + categoryColumns
/** Stands for an integer that is missing; as a value it is refused. */
export const missingInteger = -(2 ** 31)
/** Bit 0 of the flags is the label; bit 1 + c says that category c is missing. */
export const labelOf = (flags: number): number => flags & 1
export const isCategoryMissing = (flags: number, column: number): boolean => ((flags >>> (column + 1)) & 1) === 1

const tab = 9
const carriageReturn = 13
const minus = 45

/** Writes the row to `out` from `at` on; otherwise says what is wrong. Nothing but that text may reach a log. */
export function parseCriteoLine(
  bytes: Uint8Array,
  start: number,
  lineEnd: number,
  out: Int32Array,
  at: number,
): string | undefined {
  const end = lineEnd > start && bytes[lineEnd - 1] === carriageReturn ? lineEnd - 1 : lineEnd
  const label = bytes[start]! - 48
  if (end === start) return 'the line is empty'
  if ((label !== 0 && label !== 1) || (start + 1 < end && bytes[start + 1] !== tab)) return 'column 1: expected 0 or 1'
  let flags = label
  let position = start + 1
  for (let column = 1; column < columns; column++) {
    if (position >= end) return `expected ${columns} columns, got ${column}`
    position++ // The tab: what ends a column is a tab or the end.
    const from = position
    if (column <= integerColumns) {
      const negative = position < end && bytes[position] === minus
      if (negative) position++
      let value = 0
      const digits = position
      for (; position < end && bytes[position] !== tab; position++) {
        const digit = bytes[position]! - 48
        if (digit < 0 || digit > 9 || position - digits >= 10) return `column ${column + 1}: expected a 32-bit integer`
        value = value * 10 + digit
      }
      if (position === from) {
        out[at + column] = missingInteger
      } else {
        if (position === digits || value > 0x7fffffff) return `column ${column + 1}: expected a 32-bit integer`
        out[at + column] = negative ? -value : value
      }
    } else {
      let value = 0
      for (; position < end && bytes[position] !== tab; position++) {
        const digit = hexDigits[bytes[position]!]!
        if (digit < 0 || position - from >= 8) return `column ${column + 1}: expected at most 8 hexadecimal digits`
        value = (value << 4) | digit
      }
      if (position === from) flags |= 1 << (column - integerColumns)
      out[at + column] = value
    }
  }
  if (position < end) return `expected ${columns} columns, got more`
  out[at] = flags
  return undefined
}

const hexDigits = new Int8Array(256).fill(-1)
for (let digit = 0; digit < 16; digit++) {
  hexDigits[digit.toString(16).charCodeAt(0)] = digit
  hexDigits[digit.toString(16).toUpperCase().charCodeAt(0)] = digit
}
