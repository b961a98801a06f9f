// SPDX-License-Identifier: Apache-2.0
/**
 * A worker's memory of the newest checkpoint that its servers said is on disk, sealed, one file a job. A server that comes
 * back with an older one was rolled back by its host, or lost its disk.
 *
 * A server keeps the like beside its checkpoints: what workers were told, so that nobody begins anew behind their backs when
 * another server comes without its own.
 *
 * The worker's own host may delete the file or bring back an older one: then the worker remembers less and is protected by
 * the other workers' memory only. It can't make the worker remember more, or another job's.
 */
import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ByteReader } from './byte-reader.ts'
import { readSealed, type SealedContext, writeSealed } from './sealed-file.ts'

export interface NewestSeenOptions {
  readonly directory: string
  /** 32 bytes: `deriveSealingKey`. */
  readonly key: Uint8Array
  readonly jobDigest: Uint8Array
  /** `worker` unless said. */
  readonly holder?: 'worker' | 'server'
  /** Number of the holder, and how many there are. */
  readonly worker: number
  readonly workers: number
}

export class NewestSeen {
  readonly #options: NewestSeenOptions
  readonly #path: string
  #step: number | undefined
  #turn: Promise<void> = Promise.resolve()

  private constructor(options: NewestSeenOptions) {
    const job = Buffer.from(options.jobDigest).toString('hex')
    this.#options = options
    const { directory, holder = 'worker', worker } = options
    this.#path = join(directory, `${job.slice(0, 16)}-${holder}${worker}.newest-seen`)
  }

  /** Nothing is remembered where there is no file; one that is damaged or not ours is refused. */
  static async open(options: NewestSeenOptions): Promise<NewestSeen> {
    const seen = new NewestSeen(options)
    if (await isThere(seen.#path)) seen.#step = await seen.#read()
    return seen
  }

  get step(): number | undefined {
    return this.#step
  }

  /** Whether a server whose newest checkpoint is of this step is no older than what was remembered. */
  check(step: number): boolean {
    return this.#step === undefined || step >= this.#step
  }

  /** On disk for good when it resolves; an older step changes nothing. */
  async remember(step: number): Promise<void> {
    assert(Number.isSafeInteger(step) && step >= 0, `a checkpoint of step ${step}`)
    const writing = this.#turn.then(() => this.#write(step))
    this.#turn = writing.catch(() => undefined)
    await writing
  }

  async #write(step: number): Promise<void> {
    if (this.#step !== undefined && step <= this.#step) return
    const content = Buffer.alloc(8)
    content.writeBigUInt64LE(BigInt(step))
    const { key } = this.#options
    await writeSealed(this.#path, [content], { key, context: this.#context() })
    this.#step = step
  }

  async #read(): Promise<number> {
    const reader = new ByteReader(readSealed(this.#path, { key: this.#options.key, context: this.#context() }))
    try {
      const step = Number((await reader.take(8)).readBigUInt64LE())
      assert(await reader.atEnd(), 'eight bytes')
      return step
    } finally {
      await reader.close()
    }
  }

  /** The fields for a server hold the worker's place here: the kind keeps them apart. */
  #context(): SealedContext {
    const { holder, jobDigest, worker, workers } = this.#options
    return {
      kind: holder === 'server' ? 'durable-step' : 'newest-seen',
      jobDigest,
      server: worker,
      servers: workers,
      step: 0,
    }
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    // Anything else shows when it is read.
    return (error as NodeJS.ErrnoException).code !== 'ENOENT'
  }
}
