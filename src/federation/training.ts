// SPDX-License-Identifier: Apache-2.0
/**
 * ② and scoring, the same for a worker and for training without federation: a batch of this party's examples through the
 * compiled step, and sums over its share of the held-out examples. What a step computes is a function of the parameters and
 * the task alone, whoever computes it and however often.
 */
import assert from 'node:assert/strict'
import type { Engine, EngineTensor, HostTensor } from '../engine/engine.ts'
import type { EvaluationStep, TrainingStep } from '../engine/step.ts'
import type { Transfer } from '../models/bfloat16.ts'
import type { ModelTable } from '../models/model.ts'
import type { Manifest } from './manifest.ts'
import { addSums, type Sums } from './metrics.ts'
import type { Task } from './protocol/remote-worker.ts'
import { type Values, valuesOf } from './tensor-set.ts'
import { touchedRows } from './touched-rows.ts'

export type Batch = Readonly<Record<string, HostTensor>>
export type Parameters = ReadonlyMap<string, HostTensor>

export interface TrainingOptions {
  readonly manifest: Manifest
  readonly tables: readonly ModelTable[]
  readonly step: Pick<TrainingStep, 'run'>
  readonly evaluation: Pick<EvaluationStep, 'run'>
  readonly batch: (task: Task) => Promise<Batch>
  /** This party's share of the held-out examples, from the start at each call. */
  readonly heldOut: () => AsyncIterable<Batch>
  /** int32: batch n of a shard draws its randomness from (seed of the shard, n). */
  readonly seed: (shard: number) => number
}

/** A batch and the rows that it touches. */
export interface PreparedBatch {
  /** Of each table, ascending. */
  readonly rows: readonly Uint32Array[]
  readonly batch: Batch
}

/** An update as it is sent: gradients of trained tensors, new minus old value of statistics. */
export interface ComputedUpdate {
  readonly loss: number
  readonly examples: number
  /** By manifest index; valid until `dispose`, as are `rows`: by table, gradients of the batch's rows in their order. */
  readonly values: readonly Values[]
  readonly rows: readonly Values[]
  dispose(): void
}

export class Training {
  readonly #options: TrainingOptions
  #steps = 0

  constructor(options: TrainingOptions) {
    this.#options = options
  }

  /** Steps computed so far. */
  get steps(): number {
    return this.#steps
  }

  async batch(task: Task): Promise<PreparedBatch> {
    return this.#prepare(await this.#options.batch(task))
  }

  async *heldOut(): AsyncGenerator<PreparedBatch, void> {
    for await (const batch of this.#options.heldOut()) yield this.#prepare(batch)
  }

  /** Memory for as many rows of each table as a batch may touch. */
  rowMemory(engine: Engine, { batch }: PreparedBatch, transfer: Transfer = 'float32'): readonly EngineTensor[] {
    return this.#options.tables.map(({ field, width }) => {
      return engine.tensor({ shape: [batch[field]!.data.length, width], dtype: transfer })
    })
  }

  async computeUpdate(
    parameters: Parameters,
    rows: readonly HostTensor[],
    prepared: PreparedBatch,
    { shard, position }: Task,
    signal: AbortSignal,
  ): Promise<ComputedUpdate> {
    const { manifest, tables, step, seed } = this.#options
    this.#steps++
    const batch = this.#withRows(prepared.batch, rows)
    const result = await step.run(parameters, batch, [seed(shard), position], { signal })
    const values = manifest.map(({ name, role }) =>
      role === 'statistic'
        ? difference(floats(result.statistics.get(name)), floats(parameters.get(name)))
        : valuesOf(result.gradients.get(name)),
    )
    const gradients = tables.map(({ name, width }, table) =>
      valuesOf(result.rowGradients.get(name)).subarray(0, prepared.rows[table]!.length * width),
    )
    const examples = examplesOf(prepared.batch)
    return { loss: result.loss, examples, values, rows: gradients, dispose: () => result.dispose() }
  }

  async score(parameters: Parameters, rows: readonly HostTensor[], { batch }: PreparedBatch): Promise<Sums> {
    return await this.#options.evaluation.run(parameters, this.#withRows(batch, rows))
  }

  #prepare(batch: Batch): PreparedBatch {
    const indexed: Record<string, HostTensor> = { ...batch }
    const rows = this.#options.tables.map((table) => {
      const { field } = table
      const tensor = batch[field]
      assert(tensor?.data instanceof Int32Array)
      const touched = touchedRows(tensor.data, table)
      indexed[field] = { shape: tensor.shape, dtype: 'int32', data: touched.indices }
      return touched.ids
    })
    return { rows, batch: indexed }
  }

  #withRows(batch: Batch, rows: readonly HostTensor[]): Batch {
    return {
      ...batch,
      ...Object.fromEntries(this.#options.tables.map(({ name }, table) => [`rows/${name}`, rows[table]!])),
    }
  }
}

/** Sums over everything that was scored, in order. */
export async function scoreAll(training: Training, score: (prepared: PreparedBatch) => Promise<Sums>): Promise<Sums> {
  const parts: Sums[] = []
  for await (const prepared of training.heldOut()) parts.push(await score(prepared))
  return addSums(parts)
}

function examplesOf(batch: Batch): number {
  const [field] = Object.values(batch)
  const [count] = field?.shape ?? []
  assert(count !== undefined, 'a batch has a first dimension')
  return count
}

function floats(tensor: HostTensor | undefined): Float32Array {
  assert(tensor?.data instanceof Float32Array)
  return tensor.data
}

function difference(after: Float32Array, before: Float32Array): Float32Array {
  return after.map((value, index) => value - before[index]!)
}
