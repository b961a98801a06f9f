// SPDX-License-Identifier: Apache-2.0
/**
 * What workers agree on before they train on Criteo rows: the vocabulary of every column and the statistics of the integers, made from
 * counted values and sums of their training rows. The server's enclave sees those counts; the other workers learn the vocabulary, that
 * is values that are in at least `minimumCount` rows and that at least `minimumOwners` of them hold, and the statistics (docs/data.md).
 */
import { DataError } from '../dataset.ts'
import { chunkKind, columnOf, floatsChunk, malformed, readFloats, readValues, valueChunks } from './agreement-format.ts'
import { categoryColumns, integerColumns, isCategoryMissing, missingInteger, rowWords } from './criteo-line.ts'
import type { Agreement, CriteoEncoder, EncodingOptions } from './encoding.ts'
import type { CriteoRows } from './row-cache.ts'
import { ValueCounts } from './value-counts.ts'

/** Distinct values over all columns that the server holds at most: 12 bytes each, three times that while a table grows. */
const maximumDistinctValues = 64_000_000

/** Rows that have the integer, their sum, the sum of their squares. */
type Sums = readonly number[][]

export class CriteoPreparationServer {
  readonly #options: EncodingOptions
  readonly #maximumDistinctValues: number
  readonly #counts = Array.from({ length: categoryColumns }, () => new ValueCounts())
  /** By worker: added up in the order of workers, so that the sums do not depend on who was first. */
  readonly #sums = new Map<number, Sums>()
  #result: readonly Uint8Array[] | undefined

  constructor(options: EncodingOptions, limits: { readonly maximumDistinctValues?: number } = {}) {
    this.#options = options
    this.#maximumDistinctValues = limits.maximumDistinctValues ?? maximumDistinctValues
  }

  /** One worker's contribution; it counts when it has ended, and the first of a worker only. */
  begin(worker: number): { accept(chunk: Uint8Array): void; end(): void; abort(): void } {
    const code = 'contribution-malformed'
    let sums: Sums | undefined
    let chunks: Uint8Array[] = []
    let column = 0
    let last = -1
    let distinct = 0
    const take = (chunk: Uint8Array, use: (value: number, count: number) => void): void => {
      const next = columnOf(chunk, column, code)
      if (next !== column) last = -1
      column = next
      last = readValues(chunk, last, true, code, use)
    }
    return {
      accept: (chunk) => {
        if (chunk[0] === chunkKind.sums && sums === undefined) {
          sums = readFloats(chunk, 3, code)
          if (sums.some(([rows, , squares]) => rows! < 0 || squares! < 0)) {
            throw malformed(code, 'expected sums of rows and squares, got negative ones')
          }
        } else if (chunk[0] === chunkKind.values && this.#options.categories.scheme === 'vocabulary') {
          take(chunk, () => distinct++)
          this.#checkRoom(distinct)
          chunks.push(chunk.slice())
        } else {
          throw malformed(code, `expected sums once and values, got kind ${chunk[0]}`)
        }
      },
      end: () => {
        if (sums === undefined) throw malformed(code, 'expected sums, got none')
        if (!this.#sums.has(worker)) {
          this.#sums.set(worker, sums)
          column = 0
          last = -1
          for (const chunk of chunks) take(chunk, (value, count) => this.#counts[column]!.add(value, count, 1))
          this.#checkRoom(0)
        }
        chunks = []
      },
      abort: () => {
        chunks = []
      },
    }
  }

  /** When all workers have contributed. */
  result(): Iterable<Uint8Array> {
    this.#result ??= [floatsChunk(chunkKind.statistics, this.#statistics()), ...this.#vocabulary()]
    return this.#result
  }

  /** A result of before, instead of contributions. */
  restore(chunks: Iterable<Uint8Array>): void {
    const kept = Array.from(chunks, (chunk) => chunk.slice())
    const reader = new AgreementReader(this.#options)
    for (const chunk of kept) reader.accept(chunk)
    reader.end()
    this.#result = kept
  }

  #checkRoom(more: number): void {
    const held = this.#counts.reduce((sum, counts) => sum + counts.size, more)
    if (held <= this.#maximumDistinctValues) return
    throw new DataError(
      'vocabulary-full',
      `expected at most ${this.#maximumDistinctValues} distinct values of all workers and columns, got more`,
      { hint: 'use the hash scheme: data.categories = {"scheme": "hash", "buckets": …}' },
    )
  }

  #statistics(): number[] {
    const workers = [...this.#sums.keys()].sort((a, b) => a - b)
    return Array.from({ length: integerColumns }, (_, column) => {
      let [rows, sum, squares] = [0, 0, 0]
      for (const worker of workers) {
        const own = this.#sums.get(worker)![column]!
        rows += own[0]!
        sum += own[1]!
        squares += own[2]!
      }
      const mean = rows > 0 ? sum / rows : 0
      const variance = rows > 0 ? squares / rows - mean * mean : 0
      // A column that never varies stays as it is.
      return [mean, variance > 1e-12 * (1 + mean * mean) ? Math.sqrt(variance) : 1]
    }).flat()
  }

  *#vocabulary(): Generator<Uint8Array> {
    const { categories } = this.#options
    if (categories.scheme === 'hash') return
    for (const [column, counts] of this.#counts.entries()) {
      const common: { value: number; count: number }[] = []
      for (const { value, count, owners } of counts) {
        if (count >= categories.minimumCount && owners >= categories.minimumOwners) common.push({ value, count })
      }
      common.sort((a, b) => b.count - a.count || a.value - b.value)
      // Sent in the order of values, which tells nothing of how common each is.
      yield* valueChunks(
        column,
        Uint32Array.from(common.slice(0, categories.maximumValues), ({ value }) => value).sort(),
      )
    }
  }
}

/** Reads what was agreed on, chunk by chunk. */
class AgreementReader {
  readonly #options: EncodingOptions
  readonly #vocabulary: number[][] = Array.from({ length: categoryColumns }, () => [])
  #dense: Agreement['dense'] | undefined
  #column = 0
  #last = -1

  constructor(options: EncodingOptions) {
    this.#options = options
  }

  accept(chunk: Uint8Array): void {
    const code = 'preparation-malformed'
    const { categories } = this.#options
    if (chunk[0] === chunkKind.statistics && this.#dense === undefined) {
      this.#dense = readFloats(chunk, 2, code).map(([mean, standardDeviation]) => {
        if (standardDeviation! <= 0) throw malformed(code, `expected a deviation above 0, got ${standardDeviation}`)
        return { mean: mean!, standardDeviation: standardDeviation! }
      })
    } else if (chunk[0] === chunkKind.vocabulary && categories.scheme === 'vocabulary') {
      const column = columnOf(chunk, this.#column, code)
      if (column !== this.#column) this.#last = -1
      this.#column = column
      const values = this.#vocabulary[column]!
      this.#last = readValues(chunk, this.#last, false, code, (value) => values.push(value))
      if (values.length > categories.maximumValues) {
        throw malformed(code, `expected at most ${categories.maximumValues} values of column ${column}, got more`)
      }
    } else {
      throw malformed(code, `expected statistics once and a vocabulary, got kind ${chunk[0]}`)
    }
  }

  end(): Agreement {
    if (this.#dense === undefined) throw malformed('preparation-malformed', 'expected statistics, got none')
    return { dense: this.#dense, vocabulary: this.#vocabulary.map((values) => Uint32Array.from(values)) }
  }
}

export class CriteoPreparationWorker {
  readonly #rows: CriteoRows
  readonly #training: Uint32Array
  readonly #encoder: CriteoEncoder

  /** `training`: the rows that this worker trains on; no other is counted. What is agreed on goes to the encoder. */
  constructor(rows: CriteoRows, training: Uint32Array, encoder: CriteoEncoder) {
    this.#rows = rows
    this.#training = training
    this.#encoder = encoder
  }

  async *contribution(): AsyncGenerator<Uint8Array, void> {
    const counting = this.#encoder.options.categories.scheme === 'vocabulary'
    const counts = Array.from({ length: categoryColumns }, () => new ValueCounts())
    const sums = new Array<number>(integerColumns * 3).fill(0)
    const words = new Int32Array(rowWords)
    for (const [done, row] of this.#training.entries()) {
      this.#rows.copyRow(row, words, 0)
      for (let column = 0; column < integerColumns; column++) {
        const value = words[1 + column]!
        if (value === missingInteger) continue
        sums[3 * column]!++
        sums[3 * column + 1]! += value
        sums[3 * column + 2]! += value * value
      }
      for (let column = 0; counting && column < categoryColumns; column++) {
        if (!isCategoryMissing(words[0]!, column)) counts[column]!.add(words[1 + integerColumns + column]! >>> 0)
      }
      // The connection's heartbeats want their turn.
      if (done % 10_000 === 9_999) await new Promise(setImmediate)
    }
    yield floatsChunk(chunkKind.sums, sums)
    for (const [column, own] of counts.entries()) {
      yield* valueChunks(column, own.sortedValues(), (value) => own.countOf(value))
    }
  }

  begin(): { accept(chunk: Uint8Array): void; end(): void } {
    const reader = new AgreementReader(this.#encoder.options)
    return {
      accept: (chunk) => reader.accept(chunk),
      end: () => this.#encoder.agree(reader.end()),
    }
  }
}
