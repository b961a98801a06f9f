// SPDX-License-Identifier: Apache-2.0
/**
 * From rows as they came to what the model reads. Every categorical column owns `columnRows` consecutive rows of one embedding
 * table: the first for values out of vocabulary, the second for missing ones, then the values. So the table's size follows from the
 * job alone, whatever the data.
 */
import { strict as assert } from 'node:assert'
import { categoryColumns, integerColumns, isCategoryMissing, missingInteger } from './criteo-line.ts'
import { mixed, slotOf } from './value-counts.ts'

export type CategoryOptions =
  | {
      readonly scheme: 'vocabulary'
      /** Values in fewer training rows, over all owners, are out of vocabulary. */
      readonly minimumCount: number
      /** So are values that fewer owners hold. */
      readonly minimumOwners: number
      /** Of one column, the commonest. */
      readonly maximumValues: number
    }
  | { readonly scheme: 'hash'; readonly buckets: number }

export interface EncodingOptions {
  readonly dense: 'log' | 'standardised'
  readonly categories: CategoryOptions
}

const outOfVocabulary = 0
const missing = 1
const firstValue = 2

/** Rows of the embedding table that each column owns. */
export function columnRows(categories: CategoryOptions): number {
  return firstValue + (categories.scheme === 'hash' ? categories.buckets : categories.maximumValues)
}

/** Rows of the whole embedding table. */
export function tableRows(categories: CategoryOptions): number {
  return categoryColumns * columnRows(categories)
}

/** What has to be agreed on before rows can be encoded. */
export interface Agreement {
  /** Of the integers as they came, missing ones left out. */
  readonly dense: readonly { readonly mean: number; readonly standardDeviation: number }[]
  /** Of each column, ascending: value i is row 2 + i of its column. None under `hash`. */
  readonly vocabulary: readonly Uint32Array[]
}

export function needsAgreement({ dense, categories }: EncodingOptions): boolean {
  return dense === 'standardised' || categories.scheme === 'vocabulary'
}

interface Index {
  readonly values: Uint32Array
  /** 0: the slot is empty. */
  readonly rows: Uint32Array
}

/** Shared by the data sets of a worker; ready at once if there is nothing to agree on. */
export class CriteoEncoder {
  readonly options: EncodingOptions
  #dense: Agreement['dense'] = []
  #indexes: readonly Index[] = []
  #ready: boolean

  constructor(options: EncodingOptions) {
    this.options = options
    this.#ready = !needsAgreement(options)
  }

  agree({ dense, vocabulary }: Agreement): void {
    this.#dense = dense
    this.#indexes = vocabulary.map(indexOf)
    this.#ready = true
  }

  /** `words`: a row; 13 floats go to `dense` and 26 row ids to `ids`, for example number `example` of a batch. */
  encode(words: Int32Array, dense: Float32Array, ids: Int32Array, example: number): void {
    assert(this.#ready, 'rows are read after the workers agreed on their encoding')
    for (let column = 0; column < integerColumns; column++) {
      dense[example * integerColumns + column] = this.#denseValue(words[1 + column]!, column)
    }
    const { categories } = this.options
    const rows = columnRows(categories)
    const flags = words[0]!
    for (let column = 0; column < categoryColumns; column++) {
      const value = words[1 + integerColumns + column]! >>> 0
      let local = outOfVocabulary
      if (isCategoryMissing(flags, column)) local = missing
      // The column is mixed in, so that columns that share values do not collide alike.
      else if (categories.scheme === 'hash') {
        local = firstValue + (mixed(value ^ mixed(column + 1)) % categories.buckets)
      } else {
        const index = this.#indexes[column]!
        local = index.rows[slotOf(index.values, index.rows, value)]!
      }
      ids[example * categoryColumns + column] = column * rows + local
    }
  }

  /** A missing integer is 0: as the number 0 is under `log`, as the mean is when standardised. */
  #denseValue(value: number, column: number): number {
    if (value === missingInteger) return 0
    if (this.options.dense === 'log') return Math.log1p(Math.max(0, value))
    const { mean, standardDeviation } = this.#dense[column]!
    return (value - mean) / standardDeviation
  }
}

/** At most half full, so that a search ends soon. */
function indexOf(vocabulary: Uint32Array): Index {
  const length = 2 ** Math.ceil(Math.log2(2 * vocabulary.length + 2))
  const index = { values: new Uint32Array(length), rows: new Uint32Array(length) }
  for (const [place, value] of vocabulary.entries()) {
    const slot = slotOf(index.values, index.rows, value)
    index.values[slot] = value
    index.rows[slot] = firstValue + place
  }
  return index
}
