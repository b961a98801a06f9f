// SPDX-License-Identifier: Apache-2.0
/** Synthetic click logs in Criteo's format and shape, learnable, of any size; a function of the seed alone. NOT Criteo's data. */
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { RandomStream } from '../../models/philox.ts'
import type { EventSink } from '../../observability/events.ts'
import { placeAnew } from '../place-anew.ts'
import { BayesScores, ClickModel, type DrawnRow } from './click-model.ts'
import { categoryColumns, integerColumns } from './criteo-line.ts'
import { RowSource } from './draw-row.ts'
import { heldOutRows } from './open-criteo.ts'
import { mixed } from './value-counts.ts'

/** What the generator says of itself, beside the rows. */
export const generatorFile = 'generator.json'
/** The reference's: the first seventh of the rows. */
const heldOutFraction = 1 / 7

export interface SyntheticCriteoOptions {
  /** Must not exist yet, or be empty. */
  readonly directory: string
  readonly rows: number
  readonly seed: number
  readonly files: number
  readonly gzip: boolean
  readonly events?: EventSink
  readonly signal?: AbortSignal
}

type Scores = ReturnType<BayesScores['result']>

export interface GeneratorReport {
  readonly generator: 'cloister-criteo-1'
  readonly seed: number
  readonly files: readonly string[]
  /** Scores of the true probabilities on all rows, and on the first seventh, which jobs hold out by default. */
  readonly bayes: { readonly all: Scores; readonly heldOut: Scores }
}

export async function writeSyntheticCriteo(options: SyntheticCriteoOptions): Promise<GeneratorReport> {
  const { directory, rows, seed, files, gzip, events, signal } = options
  if (!(Number.isInteger(rows) && rows >= 2 && files >= 1 && files <= rows)) {
    throw new RangeError(`expected at least 2 rows and at most one file a row, got ${rows} rows in ${files} files`)
  }
  return await placeAnew(directory, async (unfinished) => {
    const model = new ClickModel(seed, new RowSource(seed, 'criteo calibration').draw)
    const source = new RowSource(seed, 'criteo rows')
    const labels = new RandomStream(seed, 'criteo labels')
    const [all, heldOut] = [new BayesScores(), new BayesScores()]
    const held = heldOutRows(rows, heldOutFraction)
    const text = new RowText(seed)
    let done = 0
    const upTo = function* (end: number): Generator<Uint8Array> {
      while (done < end) {
        signal?.throwIfAborted()
        for (const last = Math.min(end, done + chunkRows); done < last; done++) {
          const row = source.draw()
          const probability = model.probability(row)
          const label = labels.uniform() < probability ? 1 : 0
          all.add(probability, label)
          if (done < held) heldOut.add(probability, label)
          text.append(label, row)
        }
        events?.({ kind: 'progress', activity: 'prepare-data', done, total: rows })
        yield text.take()
      }
    }
    const names = Array.from(
      { length: files },
      (_, file) => (files === 1 ? 'train.txt' : `day_${file}`) + (gzip ? '.gz' : ''),
    )
    for (const [file, name] of names.entries()) {
      const handle = await open(join(unfinished, name), 'wx')
      const chunks = upTo(Math.floor((rows * (file + 1)) / files))
      if (gzip) await pipeline(chunks, createGzip({ level: 1 }), handle.createWriteStream())
      else await pipeline(chunks, handle.createWriteStream())
    }
    const report: GeneratorReport = {
      generator: 'cloister-criteo-1',
      seed,
      files: names,
      bayes: { all: all.result(), heldOut: heldOut.result() },
    }
    await writeFile(join(unfinished, generatorFile), `${JSON.stringify(report, undefined, 2)}\n`)
    return report
  })
}

const chunkRows = 1000
const maximumRowBytes = 2 + integerColumns * 12 + categoryColumns * 9
const hex = Uint8Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0))

/** Rows as bytes, without a string for each field. */
class RowText {
  readonly #columnKeys: Uint32Array
  readonly #bytes = new Uint8Array(chunkRows * maximumRowBytes)
  #length = 0

  constructor(seed: number) {
    const random = new RandomStream(seed, 'criteo values')
    this.#columnKeys = Uint32Array.from({ length: categoryColumns }, () => random.uint32())
  }

  append(label: number, { integers, ranks }: DrawnRow): void {
    const bytes = this.#bytes
    bytes[this.#length++] = 48 + label
    for (let column = 0; column < integerColumns; column++) {
      bytes[this.#length++] = 9
      const value = integers[column]!
      if (!Number.isNaN(value)) this.#appendInteger(value)
    }
    for (let column = 0; column < categoryColumns; column++) {
      bytes[this.#length++] = 9
      const rank = ranks[column]!
      if (rank < 0) continue
      // One to one, so that a column has as many values as ranks.
      const value = mixed(rank ^ this.#columnKeys[column]!)
      for (let shift = 28; shift >= 0; shift -= 4) bytes[this.#length++] = hex[(value >>> shift) & 15]!
    }
    bytes[this.#length++] = 10
  }

  /** What was appended since the last time; the caller's to keep. */
  take(): Uint8Array {
    const text = this.#bytes.slice(0, this.#length)
    this.#length = 0
    return text
  }

  #appendInteger(value: number): void {
    let rest = Math.abs(value)
    if (value < 0) this.#bytes[this.#length++] = 45
    let digits = 1
    for (let bound = 10; bound <= rest; bound *= 10) digits++
    for (let place = digits - 1; place >= 0; place--) {
      this.#bytes[this.#length + place] = 48 + (rest % 10)
      rest = Math.floor(rest / 10)
    }
    this.#length += digits
  }
}
