// SPDX-License-Identifier: Apache-2.0
/**
 * Collateral on disk, so that a restart needs no PCCS. One file a document, written aside and renamed. The host can change, swap or roll back
 * these files as it can the answers of the service: what is read is parsed like an answer, what does not parse counts as absent.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import * as v from 'valibot'
import { readTextFile, replaceFile } from './text-file.ts'

const schema = v.strictObject({
  format: v.literal(1),
  url: v.string(),
  fetchedAt: v.pipe(v.string(), v.isoTimestamp()),
  document: v.record(v.string(), v.string()),
})

export interface CachedDocument {
  readonly fetchedAt: Date
  readonly document: Readonly<Record<string, string>>
}

export class CollateralCache {
  readonly #directory: string
  readonly #maxBytes: number

  constructor(directory: string, maxBytes: number) {
    this.#directory = directory
    this.#maxBytes = maxBytes
  }

  async read(url: string): Promise<CachedDocument | undefined> {
    try {
      const text = await readTextFile(this.#path(url), this.#maxBytes)
      const file = v.parse(schema, JSON.parse(text))
      // A file under another document's name is a swapped file.
      return file.url === url ? { fetchedAt: new Date(file.fetchedAt), document: file.document } : undefined
    } catch {
      return undefined
    }
  }

  async write(url: string, { fetchedAt, document }: CachedDocument): Promise<void> {
    const text = JSON.stringify({ format: 1, url, fetchedAt: fetchedAt.toISOString(), document })
    await replaceFile(this.#path(url), text)
  }

  #path(url: string): string {
    return join(this.#directory, `${createHash('sha256').update(url).digest('hex')}.json`)
  }
}
