// SPDX-License-Identifier: Apache-2.0
/**
 * Criteo rows converted once into a file for random access (format: docs/data.md). Row i is the 160 bytes from 160·i on: 40
 * little-endian words, flags, integers, categories as they came. After the rows come a JSON footer (counts, sources, SHA-256 of every
 * block of rows), its SHA-256, its length and the magic. Opening reads and verifies all of it; what fits the memory bound stays there.
 * The host can change the file of a cache that is too large for that after it was verified, unless its directory is an encrypted
 * mount; it can always replace cache and data as a whole, as it can the data.
 */
import { createHash } from 'node:crypto'
import { readSync } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import * as v from 'valibot'
import { DataError } from '../dataset.ts'
import { labelOf, rowWords } from './criteo-line.ts'
import { type MalformedLines, type ReadRowsOptions, type ReadSource, readCriteoRows } from './read-rows.ts'

const rowBytes = rowWords * 4
/** 40 MiB: what is read, hashed and kept at a time. */
const blockRows = 2 ** 18
const magic = Buffer.from('CLOCRIT1')
const trailerBytes = 32 + 8 + magic.length
const maximumFooterBytes = 2 ** 26

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const footerSchema = v.strictObject({
  rows: v.pipe(count, v.minValue(1), v.maxValue(2 ** 32 - 1)),
  malformed: v.strictObject({ count, first: v.array(v.string()) }),
  sources: v.array(v.strictObject({ name: v.string(), identity: v.string(), sha256: digest })),
  blocks: v.array(digest),
})

export interface CriteoRows {
  readonly rows: number
  readonly malformed: MalformedLines
  readonly sources: readonly ReadSource[]
  /** One byte a row, 0 or 1. */
  readonly labels: Uint8Array
  /** Copies row `index`, `rowWords` words, to `out` from `at` on. */
  copyRow(index: number, out: Int32Array, at: number): void
  close(): Promise<void>
}

/** Written beside `path`, then renamed: there is a whole cache at `path`, or none. */
export async function writeRowCache(path: string, options: ReadRowsOptions): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  const unfinished = `${path}.unfinished-${process.pid}`
  const handle = await open(unfinished, 'w')
  try {
    const blocks: string[] = []
    let hash = createHash('sha256')
    let written = 0
    const read = await readCriteoRows(options, async (words) => {
      const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
      await writeAll(handle, bytes)
      for (let at = 0; at < bytes.length; ) {
        const rest = blockRows * rowBytes - (written % (blockRows * rowBytes))
        const part = bytes.subarray(at, at + rest)
        hash.update(part)
        at += part.length
        written += part.length
        if (part.length === rest) {
          blocks.push(hash.digest('hex'))
          hash = createHash('sha256')
        }
      }
    })
    if (written % (blockRows * rowBytes) !== 0) blocks.push(hash.digest('hex'))
    const footer = Buffer.from(JSON.stringify({ ...read, blocks }))
    const length = Buffer.alloc(8)
    length.writeUInt32LE(footer.length)
    await writeAll(handle, Buffer.concat([footer, createHash('sha256').update(footer).digest(), length, magic]))
    await handle.sync()
    await handle.close()
    await rename(unfinished, path)
  } catch (error) {
    await handle.close().catch(() => {})
    await rm(unfinished, { force: true })
    throw error
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at)).bytesWritten
}

export interface OpenRowCacheOptions {
  /** A larger cache is read row by row from the file. */
  readonly maximumMemoryBytes?: number
  readonly signal?: AbortSignal
}

export async function openRowCache(
  path: string,
  { maximumMemoryBytes = 4 * 2 ** 30, signal }: OpenRowCacheOptions = {},
): Promise<CriteoRows> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw damaged(path, `expected a file, got ${cause}`, cause)
  })
  try {
    const { size } = await handle.stat()
    const { rows, malformed, sources, blocks } = await readFooter(path, handle, size)
    const keep = rows * rowBytes <= maximumMemoryBytes
    const kept: Int32Array[] = []
    const labels = new Uint8Array(rows)
    const buffer = Buffer.alloc(Math.min(rows, blockRows) * rowBytes)
    for (const [index, expected] of blocks.entries()) {
      signal?.throwIfAborted()
      const first = index * blockRows
      const rowsHere = Math.min(blockRows, rows - first)
      const bytes = keep ? Buffer.alloc(rowsHere * rowBytes) : buffer.subarray(0, rowsHere * rowBytes)
      await readAll(path, handle, bytes, first * rowBytes)
      if (createHash('sha256').update(bytes).digest('hex') !== expected) {
        throw damaged(path, `expected rows ${first} to ${first + rowsHere - 1} as they were written, got others`)
      }
      const words = new Int32Array(bytes.buffer, bytes.byteOffset, rowsHere * rowWords)
      for (let row = 0; row < rowsHere; row++) labels[first + row] = labelOf(words[row * rowWords]!)
      if (keep) kept.push(words)
    }
    const common = { rows, malformed, sources, labels }
    if (keep) {
      await handle.close()
      const copyRow = (index: number, out: Int32Array, at: number): void => {
        const block = kept[Math.floor(index / blockRows)]!
        const from = (index % blockRows) * rowWords
        for (let word = 0; word < rowWords; word++) out[at + word] = block[from + word]!
      }
      return { ...common, copyRow, close: async () => {} }
    }
    const copyRow = (index: number, out: Int32Array, at: number): void => {
      // A row lies in the page cache or on a local disk: waiting for a thread of the pool takes longer than reading it.
      const got = readSync(handle.fd, out, at * 4, rowBytes, index * rowBytes)
      if (got !== rowBytes) throw damaged(path, `expected row ${index}, got ${got} of ${rowBytes} bytes`)
    }
    return { ...common, copyRow, close: () => handle.close() }
  } catch (error) {
    await handle.close().catch(() => {})
    throw error
  }
}

async function readFooter(path: string, handle: FileHandle, size: number): Promise<v.InferOutput<typeof footerSchema>> {
  if (size < trailerBytes) throw damaged(path, `expected a trailer of ${trailerBytes} bytes, got ${size} bytes in all`)
  const trailer = Buffer.alloc(trailerBytes)
  await readAll(path, handle, trailer, size - trailerBytes)
  const length = trailer.readUInt32LE(32)
  if (!trailer.subarray(-magic.length).equals(magic) || length > Math.min(maximumFooterBytes, size - trailerBytes)) {
    throw damaged(path, 'expected it to end with the trailer of a cache of Criteo rows')
  }
  const footer = Buffer.alloc(length)
  await readAll(path, handle, footer, size - trailerBytes - length)
  if (!createHash('sha256').update(footer).digest().equals(trailer.subarray(0, 32))) {
    throw damaged(path, 'expected the footer as it was written, got another')
  }
  const parsed = v.safeParse(footerSchema, JSON.parse(footer.toString()))
  if (!parsed.success) throw damaged(path, `footer: ${parsed.issues[0].message}`)
  const { rows, blocks } = parsed.output
  if (rows * rowBytes + length + trailerBytes !== size || blocks.length !== Math.ceil(rows / blockRows)) {
    throw damaged(path, `expected ${rows} rows, got ${size} bytes and ${blocks.length} digests`)
  }
  return parsed.output
}

async function readAll(path: string, handle: FileHandle, bytes: Uint8Array, from: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, at, bytes.length - at, from + at)
    if (bytesRead === 0) throw damaged(path, `expected ${bytes.length} bytes at ${from}, got ${at}`)
    at += bytesRead
  }
}

function damaged(path: string, message: string, cause?: unknown): DataError {
  return new DataError('data-cache-damaged', `${path}: ${message}`, {
    hint: 'delete it: it is made anew from the data',
    ...(cause !== undefined && { cause }),
  })
}
