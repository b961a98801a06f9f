// SPDX-License-Identifier: Apache-2.0
/**
 * Batches over a shard: endless and shuffled for training, each by its number; once through, padded and read ahead for evaluation.
 * The order is a function of seed, worker and epoch (Philox, Fisher–Yates), so that a run can be repeated, and resumed at
 * any step, without having read what came before.
 */
import { strict as assert } from 'node:assert'
import { setImmediate } from 'node:timers/promises'
import { RandomStream } from '../models/philox.ts'
import { type Batch, type BatchTensor, DataError, type Dataset } from './dataset.ts'

export interface BatchOptions {
  /** Indices of the examples to use. */
  readonly shard: Uint32Array
  readonly batchSize: number
  /** Batches read ahead; this bounds the memory. */
  readonly ahead?: number
  readonly signal?: AbortSignal
}

export interface TrainingBatchOptions {
  /** Indices of the examples of each data shard; asked for when it is first needed. */
  readonly shardOf: (shard: number) => Uint32Array
  readonly batchSize: number
  readonly seed: number
}

/**
 * Batches of a shard's endless order, each by its number: every example once an epoch; a batch may hold the end of one epoch
 * and the beginning of the next.
 */
export class TrainingBatches {
  readonly #dataset: Dataset
  readonly #options: TrainingBatchOptions
  /** The newest orders, by shard and epoch. */
  readonly #orders = new Map<string, Uint32Array>()

  constructor(dataset: Dataset, options: TrainingBatchOptions) {
    this.#dataset = dataset
    this.#options = options
  }

  async read({ shard, position }: { readonly shard: number; readonly position: number }): Promise<Batch> {
    return await this.#dataset.read(this.examples(shard, position))
  }

  /** Which examples are in it. */
  examples(shard: number, position: number): Uint32Array {
    const { batchSize, shardOf } = this.#options
    const all = shardOf(shard)
    checkShard(this.#dataset, { shard: all, batchSize })
    const first = position * batchSize
    const examples = new Uint32Array(batchSize)
    for (let row = 0; row < batchSize; ) {
      const epoch = Math.floor((first + row) / all.length)
      const order = this.#order(shard, epoch, all.length)
      const left = (epoch + 1) * all.length - first
      for (let at = (first + row) % all.length; row < Math.min(left, batchSize); at++)
        examples[row++] = all[order[at]!]!
    }
    return examples
  }

  #order(shard: number, epoch: number, examples: number): Uint32Array {
    const key = `${shard} ${epoch}`
    const known = this.#orders.get(key)
    if (known !== undefined) return known
    const { seed } = this.#options
    const order = new RandomStream(seed, `order of worker ${shard} in epoch ${epoch}`).permutation(examples)
    this.#orders.set(key, order)
    const [oldest] = this.#orders.keys()
    if (this.#orders.size > maxOrders && oldest !== undefined) this.#orders.delete(oldest)
    return order
  }
}

/** Two epochs of two shards. */
const maxOrders = 4

/** Every example once, in order. All batches are full: rows that pad the last one have label −1 and are 0 otherwise. */
export function evaluationBatches(dataset: Dataset, options: BatchOptions): AsyncGenerator<Batch, void> {
  checkShard(dataset, options)
  const { shard, batchSize } = options
  return readAhead(
    (async function* () {
      for (let first = 0; first < shard.length; first += batchSize) {
        yield padded(await dataset.read(shard.subarray(first, first + batchSize)), batchSize)
      }
    })(),
    options,
  )
}

/**
 * Takes values from `source` before they are asked for, at most `ahead` of them, in order. An error comes in its turn; ending
 * early, by `return` or the signal, ends the source.
 */
export async function* readAhead<T>(
  source: AsyncGenerator<T, void>,
  { ahead = 2, signal }: { readonly ahead?: number; readonly signal?: AbortSignal },
): AsyncGenerator<T, void> {
  assert(Number.isInteger(ahead) && ahead >= 1, `ahead: ${ahead}`)
  let abort = (): void => {}
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal?.reason)
  })
  aborted.catch(() => {})
  signal?.addEventListener('abort', abort)
  if (signal?.aborted) abort()

  // A generator runs its `next` calls one after another: asking early is all that reading ahead takes. The asking waits a turn
  // of the event loop, so that whoever takes a value can set the engine to work before the next is read.
  const asked: Promise<IteratorResult<T, void>>[] = []
  const ask = (): void => {
    const next = setImmediate().then(() => source.next())
    next.catch(() => {}) // Reported when its turn comes.
    asked.push(next)
  }
  try {
    while (asked.length < ahead) ask()
    while (true) {
      const result = await Promise.race([aborted, asked.shift()!])
      if (result.done) return
      ask()
      yield result.value
      signal?.throwIfAborted()
    }
  } finally {
    signal?.removeEventListener('abort', abort)
    const ended = source.return()
    // After an abort nobody waits for a read that may hang.
    if (signal?.aborted) ended.catch(() => {})
    else await ended
  }
}

function padded(batch: Batch, rows: number): Batch {
  return Object.fromEntries(
    Object.entries(batch).map(([name, tensor]) => [name, withRows(tensor, rows, name === 'labels' ? -1 : 0)]),
  )
}

function withRows({ shape: [present, ...rest], dtype, data }: BatchTensor, rows: number, padding: number): BatchTensor {
  if (present === rows) return { shape: [present, ...rest], dtype, data }
  const size = rest.reduce((product, extent) => product * extent, rows)
  const longer = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array }[dtype]
  const all = new longer(size).fill(padding)
  all.set(data)
  return { shape: [rows, ...rest], dtype, data: all }
}

function checkShard(dataset: Dataset, { shard, batchSize }: Pick<BatchOptions, 'shard' | 'batchSize'>): void {
  assert(Number.isInteger(batchSize) && batchSize >= 1, `batch size ${batchSize}`)
  if (shard.length === 0) {
    throw new DataError('shard-empty', `expected at least one example of ${dataset.name} in the shard, got none`, {
      hint: 'give this worker data, or use fewer workers',
    })
  }
}
