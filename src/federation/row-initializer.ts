// SPDX-License-Identifier: Apache-2.0
/**
 * First values of a table's rows: uniform in ±scale, a function of job seed, table and row id alone. Whichever server makes
 * a row, and whenever, it has the same bits; nothing need be sent or saved for rows that no gradient has reached.
 */
import { keyOf, philox4x32 } from '../models/philox.ts'
import { FederationError } from './federation-error.ts'

export interface TableSpec {
  readonly name: string
  readonly width: number
  /** Ids are 0 … rows − 1. */
  readonly rows: number
  readonly initial: { readonly scale: number }
}

const wordsPerBlock = 4

export class RowInitializer {
  readonly #width: number
  readonly #scale: number
  readonly #key: Uint32Array
  readonly #counter = new Uint32Array(wordsPerBlock)
  readonly #words = new Uint32Array(wordsPerBlock)

  constructor({ name, width, initial }: TableSpec, seed: number) {
    this.#width = width
    this.#scale = initial.scale
    this.#key = keyOf(seed, `rows of ${name}`)
  }

  /** Writes row `id` to `out` from `first` on. Four numbers from each block of Philox; its counter is (id, block). */
  fill(id: number, out: Float32Array, first: number): void {
    this.#counter[0] = id
    for (let column = 0; column < this.#width; column++) {
      const word = column % wordsPerBlock
      if (word === 0) {
        this.#counter[1] = column / wordsPerBlock
        philox4x32(this.#counter, this.#key, this.#words)
      }
      // Uniform in (0, 1), symmetric about ½.
      const unit = (this.#words[word]! + 0.5) / 2 ** 32
      out[first + column] = (2 * unit - 1) * this.#scale
    }
  }
}

export function rowOutOfRange({ name, rows }: Pick<TableSpec, 'name' | 'rows'>, id: number): FederationError {
  return new FederationError('row-out-of-range', `${name}: expected row ids from 0 to ${rows - 1}, got ${id}`, {
    hint: 'The data was prepared for another job, or by another version.',
  })
}
