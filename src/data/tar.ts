// SPDX-License-Identifier: Apache-2.0
/**
 * The files of a tar archive (POSIX.1-1988 ustar, IEEE Std 1003.1 "ustar Interchange Format"), as they stream by. Reads what a
 * data archive needs, regular files with plain names, and passes over everything else. The archive comes from the network:
 * nothing is believed but what the caller checks by digest, and a name is only ever compared, never used as a path.
 */
import { FetchError } from './fetch-error.ts'

const blockBytes = 512

export interface TarEntry {
  readonly name: string
  readonly size: number
  /** To be read before the next entry is asked for; what is left is passed over. */
  readonly content: AsyncIterable<Uint8Array>
}

export async function* readTar(archive: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry, void> {
  const source = new Bytes(archive)
  try {
    while (true) {
      const header = await source.exactly(blockBytes)
      if (header.every((byte) => byte === 0)) return
      checkSum(header)
      const size = octal(header.subarray(124, 136), 'size')
      const content = source.upTo(size)
      const type = header[156]!
      const isUstar = text(header.subarray(257, 263)) === 'ustar'
      const prefix = isUstar ? text(header.subarray(345, 500)) : ''
      const name = text(header.subarray(0, 100))
      // '0', or in old archives NUL: a regular file.
      if (type === 0x30 || type === 0) yield { name: prefix === '' ? name : `${prefix}/${name}`, size, content }
      for await (const _ of content);
      await source.exactly((blockBytes - (size % blockBytes)) % blockBytes)
    }
  } finally {
    await source.close()
  }
}

/** A stream of chunks as a stream of bytes. */
class Bytes {
  readonly #chunks: AsyncIterator<Uint8Array>
  #current: Uint8Array = new Uint8Array()

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]()
  }

  async close(): Promise<void> {
    await this.#chunks.return?.()
  }

  /** At most this many bytes, at least one. */
  async #some(most: number): Promise<Uint8Array> {
    while (this.#current.length === 0) {
      const next = await this.#chunks.next()
      if (next.done) throw malformed(`expected ${most} more bytes, got the end`)
      this.#current = next.value
    }
    const taken = this.#current.subarray(0, most)
    this.#current = this.#current.subarray(most)
    return taken
  }

  async exactly(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const some = await this.#some(length - done)
      bytes.set(some, done)
      done += some.length
    }
    return bytes
  }

  /** One pass over the next `length` bytes; a second pass goes on where the first stopped. */
  upTo(length: number): AsyncIterable<Uint8Array> {
    let left = length
    const next = async (): Promise<IteratorResult<Uint8Array>> => {
      if (left === 0) return { done: true, value: undefined }
      const value = await this.#some(left)
      left -= value.length
      return { done: false, value }
    }
    return { [Symbol.asyncIterator]: () => ({ next }) }
  }
}

function checkSum(header: Uint8Array): void {
  const stated = octal(header.subarray(148, 156), 'checksum')
  // The checksum's own field counts as spaces.
  const sum = header.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : byte), 0)
  if (sum !== stated) throw malformed(`expected header checksum ${stated}, got ${sum}`)
}

function octal(field: Uint8Array, name: string): number {
  const digits = text(field).trim()
  if (!/^[0-7]{1,11}$/.test(digits)) throw malformed(`expected an octal ${name}, got ${JSON.stringify(digits)}`)
  return Number.parseInt(digits, 8)
}

function text(field: Uint8Array): string {
  const end = field.indexOf(0)
  return Buffer.from(end < 0 ? field : field.subarray(0, end)).toString('latin1')
}

function malformed(message: string): FetchError {
  return new FetchError('data-archive-malformed', `tar archive: ${message}`, {
    hint: 'the download is damaged or is something else: delete it and fetch again',
  })
}
