// SPDX-License-Identifier: Apache-2.0
/**
 * ② and scoring, the same for a worker and for training without federation: the next batch of this party's examples
 * through the compiled step, and sums over its share of the held-out examples.
 */
import assert from 'node:assert/strict'
import type { HostTensor } from '../engine/engine.ts'
import type { EvaluationStep, TrainingStep } from '../engine/step.ts'
import { addSums, type Scores } from './evaluation.ts'
import type { Manifest } from './manifest.ts'

export type Batch = Readonly<Record<string, HostTensor>>
export type Parameters = ReadonlyMap<string, HostTensor>

export interface TrainingOptions {
  readonly manifest: Manifest
  readonly step: Pick<TrainingStep, 'run'>
  readonly evaluation: Pick<EvaluationStep, 'run'>
  /** Endless. */
  readonly batches: AsyncIterable<Batch>
  /** This party's share of the held-out examples, from the start at each call. */
  readonly heldOut: () => AsyncIterable<Batch>
  /** int32: step n draws its randomness from (seed, n). */
  readonly seed: number
}

/** An update as it is sent: gradients of trained tensors, new minus old value of statistics. */
export interface ComputedUpdate {
  readonly loss: number
  readonly examples: number
  /** By manifest index; valid until `dispose`. */
  readonly values: readonly Float32Array[]
  dispose(): void
}

export class Training {
  readonly #options: TrainingOptions
  readonly #batches: AsyncIterator<Batch>
  #steps = 0

  constructor(options: TrainingOptions) {
    this.#options = options
    this.#batches = options.batches[Symbol.asyncIterator]()
  }

  /** Steps computed so far. */
  get steps(): number {
    return this.#steps
  }

  async nextBatch(): Promise<Batch> {
    const next = await this.#batches.next()
    assert(!next.done, 'training batches must not end')
    return next.value
  }

  async computeUpdate(parameters: Parameters, batch: Batch, signal: AbortSignal): Promise<ComputedUpdate> {
    const { manifest, step, seed } = this.#options
    const result = await step.run(parameters, batch, [seed, this.#steps++], { signal })
    const values = manifest.map(({ name, role }) =>
      role === 'statistic'
        ? difference(floats(result.statistics.get(name)), floats(parameters.get(name)))
        : floats(result.gradients.get(name)),
    )
    return { loss: result.loss, examples: rows(batch), values, dispose: () => result.dispose() }
  }

  async score(parameters: Parameters): Promise<Scores> {
    const parts: Scores[] = []
    for await (const batch of this.#options.heldOut()) parts.push(await this.#options.evaluation.run(parameters, batch))
    return addSums(parts)
  }

  /** Lets the batches go. */
  async close(): Promise<void> {
    await this.#batches.return?.()
  }
}

function rows(batch: Batch): number {
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
