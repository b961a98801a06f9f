// SPDX-License-Identifier: Apache-2.0
/** Reads exact numbers of bytes from a stream of chunks; memory for a chunk and for what was asked. */
import { StorageError } from './storage-error.ts'

export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  #held: Uint8Array = new Uint8Array()
  #ended = false

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]()
  }

  /** `bytes` bytes in memory of their own; the caller has bounded how many. */
  async take(bytes: number): Promise<Buffer> {
    const taken = Buffer.alloc(bytes)
    await this.fill(taken)
    return taken
  }

  /** Fills `target` whole. */
  async fill(target: Uint8Array): Promise<void> {
    for (let filled = 0; filled < target.length; ) {
      if (await this.atEnd()) throw endedEarly(target.length, filled)
      const part = this.#held.subarray(0, target.length - filled)
      target.set(part, filled)
      filled += part.length
      this.#held = this.#held.subarray(part.length)
    }
  }

  async atEnd(): Promise<boolean> {
    while (this.#held.length === 0 && !this.#ended) {
      const { value, done } = await this.#chunks.next()
      if (done) this.#ended = true
      else this.#held = value
    }
    return this.#ended
  }

  /** Reads to the end and keeps nothing. */
  async drain(): Promise<void> {
    while (!(await this.atEnd())) this.#held = new Uint8Array()
  }

  /** Lets go of the source without reading it to the end. */
  async close(): Promise<void> {
    this.#ended = true
    await this.#chunks.return?.()
  }
}

function endedEarly(expected: number, got: number): StorageError {
  return new StorageError('checkpoint-malformed', `expected ${expected} bytes more, got ${got} and then the end`, {
    hint: 'It was sealed by another version of this software: go on with that version, or begin anew elsewhere.',
  })
}
