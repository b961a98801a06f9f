// SPDX-License-Identifier: Apache-2.0
/** Rows of Criteo sources in their order, a block at a time. Malformed lines are counted, located, and refused above a bound. */
import { createHash } from 'node:crypto'
import { DataError } from '../dataset.ts'
import { parseCriteoLine, rowWords } from './criteo-line.ts'
import { type CriteoSource, textOf } from './criteo-source.ts'
import { LineSplitter, maximumLineBytes } from './lines.ts'

export interface MalformedLines {
  readonly count: number
  /** The first ones: `file:line: what is wrong`, never what stands there. */
  readonly first: readonly string[]
}

export interface ReadSource {
  readonly name: string
  readonly identity: string
  /** Of the bytes as stored. */
  readonly sha256: string
}

export interface RowsRead {
  readonly rows: number
  readonly malformed: MalformedLines
  readonly sources: readonly ReadSource[]
}

export interface ReadRowsOptions {
  readonly sources: readonly CriteoSource[]
  /** How many malformed lines are left out before the data are refused. */
  readonly malformedLines: number
  readonly signal?: AbortSignal
}

const blockRows = 8192
const shownLines = 10

/** `take` gets whole rows of `rowWords` words each; they are overwritten after its promise. */
export async function readCriteoRows(
  { sources, malformedLines, signal }: ReadRowsOptions,
  take: (words: Int32Array) => void | Promise<void>,
): Promise<RowsRead> {
  const block = new Int32Array(blockRows * rowWords)
  // A chunk of text may end in the middle of a block, and hold many: full blocks wait until the chunk is through.
  const full: Int32Array[] = []
  let filled = 0
  let rows = 0
  const first: string[] = []
  let malformed = 0
  const read: ReadSource[] = []
  for (const source of sources) {
    let line = 0
    const refuse = (reason: string): void => {
      malformed++
      const place = `${source.name}:${line}: ${reason}`
      if (first.length < shownLines) first.push(place)
      if (malformed <= malformedLines) return
      throw malformedAbove(malformedLines, malformedLines < first.length ? first : [...first, place])
    }
    const splitter = new LineSplitter({
      line(bytes, start, end) {
        line++
        const reason = parseCriteoLine(bytes, start, end, block, filled * rowWords)
        if (reason !== undefined) return refuse(reason)
        rows++
        if (++filled === blockRows) {
          full.push(block.slice())
          filled = 0
        }
      },
      overlong() {
        line++
        refuse(`expected at most ${maximumLineBytes} bytes`)
      },
    })
    const hash = createHash('sha256')
    for await (const chunk of textOf(source, (bytes) => hash.update(bytes))) {
      signal?.throwIfAborted()
      splitter.push(chunk)
      for (const words of full.splice(0)) await take(words)
    }
    splitter.end()
    for (const words of full.splice(0)) await take(words)
    read.push({ name: source.name, identity: source.identity, sha256: hash.digest('hex') })
  }
  if (filled > 0) await take(block.subarray(0, filled * rowWords))
  if (rows === 0) {
    throw new DataError('data-empty', `expected rows in ${sources.map(({ name }) => name).join(', ')}, got none`, {
      hint: 'name files that have rows in the format of Criteo',
    })
  }
  return { rows, malformed: { count: malformed, first }, sources: read }
}

export function malformedAbove(bound: number, places: readonly string[]): DataError {
  return new DataError(
    'data-malformed',
    bound === 0
      ? places.slice(0, 1).join()
      : `expected at most ${bound} malformed lines, got more: ${places.slice(0, 3).join('; ')} … ${places.at(-1)}`,
    { hint: 'mend the file, or raise data.malformedLines in the job; cloister data inspect counts them all' },
  )
}
