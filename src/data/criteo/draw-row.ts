// SPDX-License-Identifier: Apache-2.0
/** Draws synthetic rows with the missing rates, quantiles, cardinalities and skew of shape.ts. */
import { RandomStream } from '../../models/philox.ts'
import type { DrawnRow } from './click-model.ts'
import { categoryColumns, integerColumns } from './criteo-line.ts'
import { type CategoryShape, categoryShapes, type IntegerShape, integerShapes } from './shape.ts'

export class RowSource {
  readonly #random: RandomStream
  readonly #integers = new Float64Array(integerColumns)
  readonly #ranks = new Int32Array(categoryColumns)
  readonly #row: DrawnRow = { integers: this.#integers, ranks: this.#ranks }

  constructor(seed: number, purpose: string) {
    this.#random = new RandomStream(seed, purpose)
  }

  /** The same object each time, filled anew. */
  draw = (): DrawnRow => {
    const random = this.#random
    // Columns with the same missing rate are missing together, as in the real data.
    for (const { rate, integers, categories } of missingGroups) {
      const isMissing = rate > 0 && random.uniform() < rate
      for (const column of integers) {
        this.#integers[column] = isMissing ? Number.NaN : integerAt(integerShapes[column]!, random.uniform())
      }
      for (const column of categories) {
        this.#ranks[column] = isMissing ? -1 : rankAt(categoryShapes[column]!, random.uniform())
      }
    }
    return this.#row
  }
}

const missingGroups = [...new Set([...integerShapes, ...categoryShapes].map(({ missing }) => missing))].map((rate) => ({
  rate,
  integers: integerShapes.flatMap(({ missing }, column) => (missing === rate ? [column] : [])),
  categories: categoryShapes.flatMap(({ missing }, column) => (missing === rate ? [column] : [])),
}))

/** −log10(1 − u) at the quantiles of shape.ts; the greatest is that of one row in the sample. */
const tails = [0, -Math.log10(0.5), 1, 2, Math.log10(137_139)]

/** Between quantiles the logarithm of the value grows with the logarithm of what lies above. */
export function integerAt({ quantiles }: IntegerShape, uniform: number): number {
  const tail = Math.min(-Math.log10(1 - uniform), tails[4]!)
  let upper = 1
  while (upper < 4 && tail > tails[upper]!) upper++
  const least = quantiles[0]
  const low = Math.log1p(quantiles[upper - 1]! - least)
  const high = Math.log1p(quantiles[upper]! - least)
  const share = (tail - tails[upper - 1]!) / (tails[upper]! - tails[upper - 1]!)
  return least + Math.floor(Math.expm1(low + share * (high - low)) + 0.5)
}

/** Rank 0 is the commonest value; the others by inversion of their law. */
export function rankAt({ missing, commonest, values, exponent, offset }: CategoryShape, uniform: number): number {
  const first = commonest / (1 - missing)
  if (uniform < first) return 0
  const share = (uniform - first) / (1 - first)
  const power = 1 - exponent
  const low = offset ** power
  const high = (values - 1 + offset) ** power
  const x = (low + share * (high - low)) ** (1 / power) - offset
  return 1 + Math.min(values - 2, Math.max(0, Math.floor(x)))
}
