// SPDX-License-Identifier: Apache-2.0
/**
 * Where Criteo rows come from: files, plain or gzip (told by their first bytes, not their names), or any stream, such as a file that
 * its owner encrypted and that is decrypted on the way.
 */
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { DataError } from '../dataset.ts'

export interface CriteoSource {
  readonly name: string
  /** Changes whenever the contents do: a cache made from another identity is not used. */
  readonly identity: string
  open(): AsyncIterable<Uint8Array>
}

/** The contents of a file, as they were before their owner encrypted them. */
export type OpenFile = (path: string) => AsyncIterable<Uint8Array>

const readFile: OpenFile = (path) => createReadStream(path, { highWaterMark: 2 ** 18 })

/** One file, or those of a directory: `train.txt`, `day_0`, `day_1` …, in this order. `test.txt` has no labels and is left out. */
export async function criteoSources(path: string, open: OpenFile = readFile): Promise<CriteoSource[]> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new DataError('data-missing', `expected a file or directory of Criteo rows at ${path}, got ${cause}`, {
      hint: 'name one with --data, or make one with: cloister data synthesize criteo DIR',
      cause,
    })
  })
  const names = found.isDirectory() ? criteoFileNames(await readdir(path)) : [basename(path)]
  if (names.length === 0) {
    throw new DataError('data-missing', `${path}: expected train.txt, day_0 … or other .txt or .tsv files, got none`, {
      hint: 'name a directory of tab-separated files in the format of Criteo',
    })
  }
  const paths = found.isDirectory() ? names.map((name) => join(path, name)) : [path]
  return Promise.all(paths.map((file) => fileSource(file, open)))
}

/** The names that hold labelled rows, in the order of their numbers. */
export function criteoFileNames(names: readonly string[]): string[] {
  const pattern = /^(?:day_\d+|.+\.(?:txt|tsv))(?:\.gz)?(?:\.age)?$/i
  const others = /^(?:test|readme|license|batches\.meta)\b/i
  const order = new Intl.Collator('en', { numeric: true })
  return names.filter((name) => pattern.test(name) && !others.test(name)).sort(order.compare)
}

async function fileSource(path: string, open: OpenFile): Promise<CriteoSource> {
  const { size, mtimeMs } = await stat(path)
  return {
    name: basename(path),
    identity: `${size} bytes of ${Math.floor(mtimeMs)}`,
    open: () => open(path),
  }
}

/** The text of a source; `seen` gets its bytes as they are stored. */
export async function* textOf(source: CriteoSource, seen: (bytes: Uint8Array) => void): AsyncGenerator<Uint8Array> {
  const stored = (async function* () {
    for await (const chunk of source.open()) {
      seen(chunk)
      if (chunk.length > 0) yield chunk
    }
  })()
  let inflating = false
  try {
    const first = await stored.next()
    if (first.done) return
    // Gzip begins with these two bytes (RFC 1952, 2.3.1), a label never.
    inflating = first.value[0] === 0x1f && (first.value[1] ?? 0x8b) === 0x8b
    const whole = (async function* () {
      yield first.value
      yield* stored
    })()
    if (inflating) yield* inflated(whole)
    else yield* whole
  } catch (cause) {
    if (cause instanceof DataError) throw cause
    throw new DataError('data-unreadable', `${source.name}: expected to read it to its end, got ${cause}`, {
      hint: inflating
        ? 'the gzip file is damaged or cut off: copy it again'
        : 'look at the disk and the file’s permissions',
      cause,
    })
  } finally {
    await stored.return(undefined)
  }
}

async function* inflated(compressed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const input = Readable.from(compressed)
  const gunzip = createGunzip({ chunkSize: 2 ** 18 })
  input.on('error', (error) => gunzip.destroy(error))
  input.pipe(gunzip)
  try {
    for await (const chunk of gunzip) yield chunk as Uint8Array
  } finally {
    input.destroy()
  }
}
