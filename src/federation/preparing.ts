// SPDX-License-Identifier: Apache-2.0
/** The leader's side of preparation: takes each worker's contribution, makes the result once, gives it to everybody. */
import { Deferred } from './deferred.ts'
import type { PreparationServer } from './preparation.ts'
import type { RemoteWorker } from './protocol/remote-worker.ts'

export class Preparing {
  readonly #preparation: PreparationServer | undefined
  readonly #workers: number
  readonly #contributed = new Set<number>()
  readonly #result = new Deferred<readonly Uint8Array[]>()
  #made: readonly Uint8Array[] | undefined

  /** `saved`: a result of before. */
  constructor(preparation: PreparationServer | undefined, workers: number, saved: Uint8Array | undefined) {
    this.#preparation = preparation
    this.#workers = workers
    if (saved === undefined) return
    this.#made = partsOf(saved)
    preparation?.restore(this.#made)
    this.#result.resolve(this.#made)
  }

  /** For a checkpoint: the result, once there is one. */
  get saved(): Uint8Array | undefined {
    return this.#made && withLengths(this.#made)
  }

  /** Resolves when the worker has what everybody has; waits for workers that have not contributed yet. */
  async with<Peer>(remote: RemoteWorker<Peer>, worker: number): Promise<void> {
    if (this.#preparation === undefined) return
    if (this.#made === undefined && !this.#contributed.has(worker)) {
      const input = this.#preparation.begin(worker)
      for await (const part of remote.contribution()) input.accept(part)
      input.end()
      this.#contributed.add(worker)
      if (this.#contributed.size === this.#workers) {
        this.#made = [...this.#preparation.result()]
        this.#result.resolve(this.#made)
      }
    }
    await remote.prepared(await this.#result.promise)
  }
}

/** Each part behind its length, 4 bytes little-endian. */
function withLengths(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(
    parts.flatMap((part) => {
      const length = Buffer.alloc(4)
      length.writeUInt32LE(part.length)
      return [length, part]
    }),
  )
}

function partsOf(saved: Uint8Array): Uint8Array[] {
  const bytes = Buffer.from(saved.buffer, saved.byteOffset, saved.byteLength)
  const parts: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = at + 4 + bytes.readUInt32LE(at)
    parts.push(bytes.subarray(at + 4, end))
    at = end
  }
  return parts
}
