// SPDX-License-Identifier: Apache-2.0
/** What is in Criteo files, in one pass: counts, missing rates, ranges, cardinalities, skew. Malformed lines are counted, all of them. */
import { categoryColumns, integerColumns, isCategoryMissing, labelOf, missingInteger, rowWords } from './criteo-line.ts'
import type { CriteoSource } from './criteo-source.ts'
import { type RowsRead, readCriteoRows } from './read-rows.ts'
import { ValueCounts } from './value-counts.ts'

export interface IntegerInspection {
  /** Share of the rows. */
  readonly missing: number
  /** Of the rows that have one; 0 where none has. */
  readonly least: number
  readonly mean: number
  readonly greatest: number
}

export interface CategoryInspection {
  readonly missing: number
  readonly distinct: number
  /** Share of all rows that have the commonest value. */
  readonly commonest: number
  /** Share of the distinct values that are in one row only. */
  readonly once: number
}

export interface CriteoInspection extends RowsRead {
  readonly clickRate: number
  readonly integers: readonly IntegerInspection[]
  readonly categories: readonly CategoryInspection[]
}

export async function inspectCriteo(
  sources: readonly CriteoSource[],
  options: { readonly signal?: AbortSignal } = {},
): Promise<CriteoInspection> {
  let clicks = 0
  const integers = Array.from({ length: integerColumns }, () => ({
    present: 0,
    sum: 0,
    least: Number.POSITIVE_INFINITY,
    greatest: Number.NEGATIVE_INFINITY,
  }))
  const missing = new Array<number>(categoryColumns).fill(0)
  const counts = missing.map(() => new ValueCounts())
  const read = await readCriteoRows(
    { sources, malformedLines: Number.POSITIVE_INFINITY, ...(options.signal && { signal: options.signal }) },
    (words) => {
      for (let at = 0; at < words.length; at += rowWords) {
        const flags = words[at]!
        clicks += labelOf(flags)
        for (const [column, seen] of integers.entries()) {
          const value = words[at + 1 + column]!
          if (value === missingInteger) continue
          seen.present++
          seen.sum += value
          seen.least = Math.min(seen.least, value)
          seen.greatest = Math.max(seen.greatest, value)
        }
        for (let column = 0; column < categoryColumns; column++) {
          if (isCategoryMissing(flags, column)) missing[column]!++
          else counts[column]!.add(words[at + 1 + integerColumns + column]! >>> 0)
        }
      }
    },
  )
  const { rows } = read
  return {
    ...read,
    clickRate: clicks / rows,
    integers: integers.map(({ present, sum, least, greatest }) => ({
      missing: 1 - present / rows,
      ...(present === 0 ? { least: 0, mean: 0, greatest: 0 } : { least, mean: sum / present, greatest }),
    })),
    categories: counts.map((values, column) => {
      let [most, once] = [0, 0]
      for (const { count } of values) {
        most = Math.max(most, count)
        if (count === 1) once++
      }
      const distinct = values.size
      return {
        missing: missing[column]! / rows,
        distinct,
        commonest: most / rows,
        once: distinct === 0 ? 0 : once / distinct,
      }
    }),
  }
}
