// SPDX-License-Identifier: Apache-2.0
/** Some of the rows of a worker as examples: `dense` float32 [13], `ids` int32 [26] (rows of the embedding table), `labels` 0 or 1. */
import type { BatchSchema } from '../../models/model.ts'
import type { Batch, Dataset } from '../dataset.ts'
import { categoryColumns, integerColumns, labelOf, rowWords } from './criteo-line.ts'
import type { CriteoEncoder } from './encoding.ts'
import type { CriteoRows } from './row-cache.ts'

export const criteoSchema = {
  dense: { shape: [integerColumns], dtype: 'float32' },
  ids: { shape: [categoryColumns], dtype: 'int32' },
  labels: { shape: [], dtype: 'int32' },
} as const satisfies BatchSchema

export class CriteoDataset implements Dataset {
  readonly name = 'criteo'
  readonly schema: BatchSchema = criteoSchema
  readonly classes = ['not clicked', 'clicked'] as const
  readonly examples: number
  readonly #rows: CriteoRows
  readonly #selection: Uint32Array
  readonly #encoder: CriteoEncoder

  /** `selection`: the rows that are its examples. Rows are closed by whoever opened them: two data sets share them. */
  constructor(rows: CriteoRows, selection: Uint32Array, encoder: CriteoEncoder) {
    this.#rows = rows
    this.#selection = selection
    this.#encoder = encoder
    this.examples = selection.length
  }

  async labels(): Promise<Uint8Array> {
    return Uint8Array.from(this.#selection, (row) => this.#rows.labels[row]!)
  }

  async read(indices: ArrayLike<number>): Promise<Batch> {
    const examples = indices.length
    const dense = new Float32Array(examples * integerColumns)
    const ids = new Int32Array(examples * categoryColumns)
    const labels = new Int32Array(examples)
    const words = new Int32Array(examples * rowWords)
    for (let example = 0; example < examples; example++) {
      const row = this.#selection[indices[example]!]
      if (row === undefined) throw new RangeError(`example ${indices[example]} of ${this.examples}`)
      this.#rows.copyRow(row, words, example * rowWords)
      labels[example] = labelOf(words[example * rowWords]!)
    }
    this.#encoder.encode(words, dense, ids)
    return {
      dense: { shape: [examples, integerColumns], dtype: 'float32', data: dense },
      ids: { shape: [examples, categoryColumns], dtype: 'int32', data: ids },
      labels: { shape: [examples], dtype: 'int32', data: labels },
    }
  }

  async close(): Promise<void> {}
}
