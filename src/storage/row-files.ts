// SPDX-License-Identifier: Apache-2.0
/**
 * Rows of embedding tables in sealed files, each holding the rows that changed between two checkpoints. A table's rows are
 * those of a chain of such files, oldest first, where later ones win. A new file takes older ones into itself while they
 * are not much bigger, as in a log-structured merge tree (O'Neil et al. 1996): a chain has few files, and a row is
 * rewritten a logarithmic number of times. Merging streams: it holds a chunk, a block and a bit for each row.
 *
 * The salt of a file names it: the checkpoint (sealed too) lists the salts of its chain, so the host cannot put together a
 * chain of files that never belonged together.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ByteReader } from './byte-reader.ts'
import { IdSet } from './id-set.ts'
import { encodeRowsBlock, maxBlockRows, type RowsBlock, readRowsBlock, rowNumbers } from './rows-block.ts'
import { readSealed, type SealedContext, writeSealed } from './sealed-file.ts'

export interface RowFile {
  /** In hex. */
  readonly salt: string
  /** The checkpoint that it was written for. */
  readonly step: number
  readonly bytes: number
}

export interface RowFilesOptions {
  readonly directory: string
  readonly key: Uint8Array
  readonly context: Pick<SealedContext, 'jobDigest' | 'server' | 'servers'>
  /** A chain whose bytes are below this is rewritten whole each time, so that checkpoints of small tables share no file. */
  readonly rewriteBelowBytes: number
}

export const rowFileSuffix = '.rows'

export function rowFileName({ step, salt }: Pick<RowFile, 'step' | 'salt'>): string {
  return `${step}-${salt.slice(0, 16)}${rowFileSuffix}`
}

/** Adds `rows`, none of them twice, to the chain: returns the chain that holds them too. */
export async function extendChain(
  options: RowFilesOptions,
  step: number,
  rows: Iterable<RowsBlock> | AsyncIterable<RowsBlock>,
  chain: readonly RowFile[],
): Promise<RowFile[]> {
  const blocks = Symbol.asyncIterator in rows ? rows[Symbol.asyncIterator]() : rows[Symbol.iterator]()
  const first = await blocks.next()
  if (first.done) return [...chain]
  const kept = [...chain]
  const content = async function* (): AsyncGenerator<Uint8Array> {
    const newer = new NewerRows()
    let bytes = 0
    for (let next: IteratorResult<RowsBlock> = first; !next.done; next = await blocks.next()) {
      assert.equal(newer.withoutSeen(next.value).ids.length, next.value.ids.length, 'a row comes once in a checkpoint')
      for (const part of encodeRowsBlock(next.value)) {
        bytes += part.length
        yield part
      }
    }
    for (let older = kept.at(-1); older !== undefined; older = kept.at(-1)) {
      if (older.bytes > 2 * bytes && older.bytes + bytes > options.rewriteBelowBytes) break
      kept.pop()
      for await (const block of packed(unseen(readRowFile(options, older), newer))) {
        for (const part of encodeRowsBlock(block)) {
          bytes += part.length
          yield part
        }
      }
    }
  }
  const salt = randomBytes(32)
  const path = join(options.directory, rowFileName({ step, salt: salt.toString('hex') }))
  const { key, context } = options
  try {
    const bytes = await writeSealed(path, content(), { key, context: { ...context, kind: 'rows', step }, salt })
    return [...kept, { salt: salt.toString('hex'), step, bytes }]
  } catch (error) {
    // It may have its name already, when making that durable is what failed.
    await rm(path, { force: true }).catch(() => undefined)
    throw error
  } finally {
    await blocks.return?.()
  }
}

/** Every row as of the end of the chain; those that were written more than once come again, the newest last. */
export async function* readChain(options: RowFilesOptions, chain: readonly RowFile[]): AsyncGenerator<RowsBlock> {
  for (const file of chain) yield* readRowFile(options, file)
}

/** Reads the file to its end; throws unless each byte is as it was sealed. */
export async function verifyRowFile(options: RowFilesOptions, file: RowFile): Promise<void> {
  for await (const _ of sealedContent(options, file));
}

async function* readRowFile(options: RowFilesOptions, file: RowFile): AsyncGenerator<RowsBlock> {
  const reader = new ByteReader(sealedContent(options, file))
  try {
    for (let block = await readRowsBlock(reader); block !== undefined; block = await readRowsBlock(reader)) yield block
  } finally {
    await reader.close()
  }
}

function sealedContent({ directory, key, context }: RowFilesOptions, file: RowFile): AsyncGenerator<Buffer> {
  const { step, salt } = file
  const path = join(directory, rowFileName(file))
  return readSealed(path, { key, context: { ...context, kind: 'rows', step }, salt: Buffer.from(salt, 'hex') })
}

/** Which rows newer files hold. */
class NewerRows {
  readonly #tables = new Map<string, IdSet>()

  /** The rows of a block that were not seen yet, which now are. */
  withoutSeen(block: RowsBlock): RowsBlock {
    const seen = this.#tables.get(block.table) ?? new IdSet()
    this.#tables.set(block.table, seen)
    const fresh: number[] = []
    for (let row = 0; row < block.ids.length; row += 1) if (seen.add(block.ids[row]!)) fresh.push(row)
    if (fresh.length === block.ids.length) return block
    const numbers = rowNumbers(block)
    const values = new Float32Array(fresh.length * numbers)
    const ids = Uint32Array.from(fresh, (row) => block.ids[row]!)
    for (const [at, row] of fresh.entries()) {
      values.set(block.values.subarray(row * numbers, (row + 1) * numbers), at * numbers)
    }
    return { ...block, ids, values }
  }
}

async function* unseen(blocks: AsyncIterable<RowsBlock>, newer: NewerRows): AsyncGenerator<RowsBlock> {
  for await (const block of blocks) yield newer.withoutSeen(block)
}

/** The same rows in blocks as big as may be: otherwise blocks would shrink with each merge and never grow again. */
async function* packed(blocks: AsyncIterable<RowsBlock>): AsyncGenerator<RowsBlock> {
  let open: RowsBlock[] = []
  let rows = 0
  for await (const block of blocks) {
    if (block.ids.length === 0) continue
    if (open.length > 0 && (rows + block.ids.length > maxBlockRows || !isAlike(open[0]!, block))) {
      yield joined(open, rows)
      open = []
      rows = 0
    }
    open.push(block)
    rows += block.ids.length
  }
  if (open.length > 0) yield joined(open, rows)
}

function isAlike(one: RowsBlock, other: RowsBlock): boolean {
  return (
    one.table === other.table && one.width === other.width && JSON.stringify(one.slots) === JSON.stringify(other.slots)
  )
}

function joined(blocks: readonly RowsBlock[], rows: number): RowsBlock {
  const [first] = blocks
  assert(first !== undefined)
  if (blocks.length === 1) return first
  const ids = new Uint32Array(rows)
  const values = new Float32Array(rows * rowNumbers(first))
  let at = 0
  for (const block of blocks) {
    ids.set(block.ids, at)
    values.set(block.values, at * rowNumbers(block))
    at += block.ids.length
  }
  return { ...first, ids, values }
}
