// SPDX-License-Identifier: Apache-2.0
/**
 * The checkpoints of one server in a directory of its own: sealed, each written beside the work and durable before anybody
 * is told, the newest K kept, each verified before it is offered (docs/storage-format.md).
 *
 * The host keeps the files. What it changes, cuts, swaps, mixes or deletes is refused and reported; that it brings back an
 * older state of the whole directory is not seen here, but by the workers (newest-seen.ts). One process per directory.
 */
import assert from 'node:assert/strict'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { partialSuffix, syncDirectory, unwritable } from './atomic-file.ts'
import {
  type CheckpointFile,
  readCheckpointFile,
  verifyCheckpointFile,
  writeCheckpointFile,
} from './checkpoint-file.ts'
import { NewestSeen } from './newest-seen.ts'
import {
  extendChain,
  type RowFile,
  type RowFilesOptions,
  readChain,
  rowFileName,
  rowFileSuffix,
  verifyRowFile,
} from './row-files.ts'
import type { RowsBlock } from './rows-block.ts'
import type { SealingOptions } from './sealed-file.ts'
import { type SealedRefusal, StorageError } from './storage-error.ts'

export interface CheckpointStoreOptions {
  readonly directory: string
  /** 32 bytes: `deriveSealingKey`. */
  readonly key: Uint8Array
  readonly context: { readonly jobDigest: Uint8Array; readonly server: number; readonly servers: number }
  /** Intact checkpoints that stay, two at least: while servers save a step together, the one before is still the newest of all. */
  readonly keep: number
  /** Told of each checkpoint that is there and cannot be used. */
  readonly onRefused: (refused: RefusedCheckpoint) => void
  readonly rewriteBelowBytes?: number
}

export interface RefusedCheckpoint {
  readonly step: number
  readonly path: string
  readonly error: StorageError
}

export interface CheckpointContent extends Omit<CheckpointFile, 'rows'> {
  readonly step: number
  /** Rows that changed since the checkpoint `since`, none twice; every row there is if `since` is left out. */
  readonly rows: Iterable<RowsBlock> | AsyncIterable<RowsBlock>
  /** An intact checkpoint of this store: the last that was written, or the one that was read to go on from. */
  readonly since?: number | undefined
}

export interface Checkpoint extends Omit<CheckpointFile, 'rows'> {
  readonly step: number
  /** Every row; one that comes again replaces what came before. Throws at the end at the latest if anything was changed. */
  readonly rows: AsyncIterable<RowsBlock>
}

export interface WrittenCheckpoint {
  readonly path: string
  /** Of the files that were written for it. */
  readonly bytes: number
}

const checkpointSuffix = '.checkpoint'
const defaultRewriteBelowBytes = 64 << 20
/** What is ours and broken may be cleared away in time; what looks like somebody else's may not. */
const damage: ReadonlySet<string> = new Set<SealedRefusal>(['sealed-malformed', 'sealed-truncated', 'sealed-damaged'])

export class CheckpointStore {
  readonly #options: CheckpointStoreOptions
  readonly #rowFiles: RowFilesOptions
  /** Intact checkpoints and the chains of their rows. */
  readonly #chains = new Map<number, readonly RowFile[]>()
  readonly #refused = new Map<number, StorageError>()
  readonly #durable: NewestSeen
  #busy = false

  private constructor(options: CheckpointStoreOptions, durable: NewestSeen) {
    assert(
      Number.isSafeInteger(options.keep) && options.keep >= 2,
      `keep two checkpoints at least, not ${options.keep}`,
    )
    const { directory, key, context, rewriteBelowBytes = defaultRewriteBelowBytes } = options
    this.#options = options
    this.#durable = durable
    this.#rowFiles = { directory, key, context, rewriteBelowBytes }
  }

  /**
   * Makes the directory if there is none, verifies every byte in it and clears away what a crash left. Throws the newest
   * checkpoint's refusal if there are some and none is intact: to begin anew must be somebody's decision.
   */
  static async open(options: CheckpointStoreOptions): Promise<CheckpointStore> {
    const { context, directory, key } = options
    const names = await makeDirectory(directory)
    const { jobDigest, server: worker, servers: workers } = context
    const durable = await NewestSeen.open({ directory, key, jobDigest, holder: 'server', worker, workers })
    const store = new CheckpointStore(options, durable)
    const steps = names.map(stepOf).filter((step) => step !== undefined)
    const verified = new Map<string, Promise<void>>()
    for (const step of steps.sort((a, b) => b - a)) await store.#verify(step, verified)
    const [newestRefused] = store.#refused.values()
    if (newestRefused !== undefined && store.#chains.size === 0) throw newestRefused
    const used = store.#usedRowFiles()
    const garbage = names.filter(
      (name) =>
        name.endsWith(partialSuffix) ||
        // A checkpoint that cannot be read may still need its rows, with another key or when its file is mended.
        (name.endsWith(rowFileSuffix) && !used.has(name) && store.#refused.size === 0),
    )
    await store.#remove(garbage)
    return store
  }

  /** Of intact checkpoints, ascending. */
  get steps(): readonly number[] {
    return [...this.#chains.keys()].sort((a, b) => a - b)
  }

  /** The newest step of which it was said that every server has it on disk; 0 when there is none. */
  get durableStep(): number {
    return this.#durable.step ?? 0
  }

  /** Every server has this step on disk. */
  async declareDurable(step: number): Promise<void> {
    await this.#durable.remember(step)
  }

  /**
   * Of a later step than the newest; on disk for good when it resolves. When it fails, everything is as it was before, and
   * the rows that it took must come again.
   */
  async write({ step, since, header, tensors, blobs, rows }: CheckpointContent): Promise<WrittenCheckpoint> {
    assert(!this.#busy, 'one checkpoint at a time')
    const before = since === undefined ? [] : this.#chains.get(since)
    assert(before !== undefined, `rows since checkpoint ${since}, which this store does not have`)
    const newest = this.steps.at(-1) ?? -1
    assert(Number.isSafeInteger(step) && step > newest, `a checkpoint of step ${step} after one of step ${newest}`)
    this.#busy = true
    let chain: readonly RowFile[] | undefined
    try {
      chain = await extendChain(this.#rowFiles, step, rows, before)
      const path = this.#pathOf(step)
      const bytes = await writeCheckpointFile(path, { header, tensors, blobs, rows: chain }, this.#sealing(step))
      const rowBytes = chain.filter((file) => !before.includes(file)).reduce((sum, file) => sum + file.bytes, 0)
      this.#chains.set(step, chain)
      this.#refused.delete(step)
      await this.#keepNewest()
      return { path, bytes: bytes + rowBytes }
    } catch (error) {
      const used = this.#usedRowFiles()
      const written = [...(this.#refused.has(step) ? [] : [fileNameOf(step)]), ...(chain ?? []).map(rowFileName)]
      await this.#remove(written.filter((name) => !used.has(name)))
      throw error
    } finally {
      this.#busy = false
    }
  }

  /** One of `steps`. The rows are read while they are taken. */
  async read(step: number): Promise<Checkpoint> {
    if (!this.#chains.has(step)) {
      throw new StorageError('checkpoint-missing', `${this.#pathOf(step)}: expected an intact checkpoint, got none`, {
        hint: `There are intact ones of the steps ${this.steps.join(', ') || '(none)'}.`,
      })
    }
    const { rows, ...content } = await readCheckpointFile(this.#pathOf(step), this.#sealing(step))
    return { step, ...content, rows: readChain(this.#rowFiles, rows) }
  }

  /**
   * Forgets every checkpoint after this step, for good: the servers go on from it, and what some of them had saved later
   * must not be taken for what they will save then.
   */
  async discardAfter(step: number): Promise<void> {
    assert(!this.#busy, 'no checkpoint is being written')
    const refused = [...this.#refused].filter(([, { code }]) => damage.has(code)).map(([refusedStep]) => refusedStep)
    await this.#forget([...this.steps, ...refused].filter((later) => later > step))
  }

  async #verify(step: number, verified: Map<string, Promise<void>>): Promise<void> {
    try {
      const chain = await verifyCheckpointFile(this.#pathOf(step), this.#sealing(step))
      for (const file of chain) {
        const verifying = verified.get(file.salt) ?? verifyRowFile(this.#rowFiles, file)
        verified.set(file.salt, verifying)
        await verifying
      }
      this.#chains.set(step, chain)
    } catch (error) {
      if (!(error instanceof StorageError)) throw error
      this.#refused.set(step, error)
      this.#options.onRefused({ step, path: this.#pathOf(step), error })
    }
  }

  /** And the one that every server has: while saves fail elsewhere, all would go back to it. */
  async #keepNewest(): Promise<void> {
    const [oldest = 0] = this.steps.slice(-this.#options.keep)
    const broken = [...this.#refused].filter(([step, { code }]) => step < oldest && damage.has(code))
    const old = this.steps.filter((step) => step < oldest && step !== this.#durable.step)
    await this.#forget([...old, ...broken.map(([step]) => step)])
  }

  async #forget(steps: readonly number[]): Promise<void> {
    if (steps.length === 0) return
    const before = this.#usedRowFiles()
    for (const step of steps) {
      this.#chains.delete(step)
      this.#refused.delete(step)
    }
    // First what names the rows: a crash in between must not leave a checkpoint without its rows.
    await this.#remove(steps.map(fileNameOf))
    const used = this.#usedRowFiles()
    await this.#remove([...before].filter((name) => !used.has(name)))
  }

  /** What can't be removed is no reason to fail what was asked for: it is found again when the store is opened next. */
  async #remove(names: readonly string[]): Promise<void> {
    if (names.length === 0) return
    const { directory } = this.#options
    for (const name of names) await rm(join(directory, name), { force: true }).catch(() => undefined)
    await syncDirectory(directory).catch(() => undefined)
  }

  #usedRowFiles(): Set<string> {
    return new Set([...this.#chains.values()].flat().map(rowFileName))
  }

  #pathOf(step: number): string {
    return join(this.#options.directory, fileNameOf(step))
  }

  #sealing(step: number): SealingOptions {
    const { key, context } = this.#options
    return { key, context: { ...context, kind: 'checkpoint', step } }
  }
}

const fileNameOf = (step: number): string => `${step}${checkpointSuffix}`

function stepOf(name: string): number | undefined {
  const step = Number(name.slice(0, -checkpointSuffix.length))
  return name === fileNameOf(step) && Number.isSafeInteger(step) && step >= 0 ? step : undefined
}

async function makeDirectory(directory: string): Promise<string[]> {
  try {
    await mkdir(directory, { recursive: true })
    return await readdir(directory)
  } catch (cause) {
    throw unwritable(directory, cause as NodeJS.ErrnoException)
  }
}
