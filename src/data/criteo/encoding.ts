// SPDX-License-Identifier: Apache-2.0
/**
 * From rows as they came to what the model reads. Every categorical column owns `columnRows` consecutive rows of one embedding
 * table: the first for values out of vocabulary, the second for missing ones, then the values. So the table's size follows from the
 * job alone, whatever the data.
 */
import { strict as assert } from 'node:assert'
import { categoryColumns, integerColumns, isCategoryMissing, missingInteger, rowWords } from './criteo-line.ts'
import { mixed } from './value-counts.ts'

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

/** Shared by the data sets of a worker; ready at once if there is nothing to agree on. */
export class CriteoEncoder {
  readonly options: EncodingOptions
  #dense: Agreement['dense'] = []
  /** By column. */
  #indexes: readonly ValueIndex[] = []
  #ready: boolean

  constructor(options: EncodingOptions) {
    this.options = options
    this.#ready = !needsAgreement(options)
  }

  agree({ dense, vocabulary }: Agreement): void {
    this.#dense = dense
    this.#indexes = vocabulary.map((values) => new ValueIndex(values))
    this.#ready = true
  }

  /**
   * `words`: rows one behind the other; 13 floats of each go to `dense` and 26 row ids to `ids`. A column of all rows at a time: its
   * values are looked up in one place.
   */
  encode(words: Int32Array, dense: Float32Array, ids: Int32Array): void {
    assert(this.#ready, 'rows are read after the workers agreed on their encoding')
    const examples = words.length / rowWords
    for (let column = 0; column < integerColumns; column++) {
      for (let example = 0; example < examples; example++) {
        const value = words[example * rowWords + 1 + column]!
        dense[example * integerColumns + column] = this.#denseValue(value, column)
      }
    }
    const rows = columnRows(this.options.categories)
    for (let column = 0; column < categoryColumns; column++) {
      for (let example = 0; example < examples; example++) {
        const at = example * rowWords
        const isMissing = isCategoryMissing(words[at]!, column)
        const local = isMissing ? missing : this.#localRow(words[at + 1 + integerColumns + column]! >>> 0, column)
        ids[example * categoryColumns + column] = column * rows + local
      }
    }
  }

  /** Among those of its column. */
  #localRow(value: number, column: number): number {
    const { categories } = this.options
    if (categories.scheme === 'vocabulary') return this.#indexes[column]!.rowOf(value)
    // The column is mixed in, so that columns that share values do not collide alike.
    return firstValue + (mixed(value ^ mixed(column + 1)) % categories.buckets)
  }

  /** A missing integer is 0: as the number 0 is under `log`, as the mean is when standardised. */
  #denseValue(value: number, column: number): number {
    if (value === missingInteger) return 0
    if (this.options.dense === 'log') return Math.log1p(Math.max(0, value))
    const { mean, standardDeviation } = this.#dense[column]!
    return (value - mean) / standardDeviation
  }
}

/** Rows of a vocabulary's values. At most half full, so that a search ends soon; value and row lie in one line of the cache. */
class ValueIndex {
  /** Value and row of each slot; row 0: the slot is empty. */
  readonly #slots: Uint32Array
  readonly #mask: number

  constructor(vocabulary: Uint32Array) {
    const length = 2 ** Math.ceil(Math.log2(2 * vocabulary.length + 2))
    this.#slots = new Uint32Array(2 * length)
    this.#mask = length - 1
    for (const [place, value] of vocabulary.entries()) {
      const at = this.#find(value)
      this.#slots[at] = value
      this.#slots[at + 1] = firstValue + place
    }
  }

  /** `outOfVocabulary`, which marks empty slots, for other values. */
  rowOf(value: number): number {
    return this.#slots[this.#find(value) + 1]!
  }

  /** Where `value` is, or belongs. */
  #find(value: number): number {
    for (let slot = mixed(value) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = 2 * slot
      if (this.#slots[at + 1] === outOfVocabulary || this.#slots[at] === value) return at
    }
  }
}
