// SPDX-License-Identifier: Apache-2.0
/**
 * The same training in one process, without a server: the baseline for every claim about federation. It uses the same
 * step, the same update program and the same schedule; a federation of one synchronous worker gives the same bits.
 */
import type { Engine, EngineTensor } from '../engine/engine.ts'
import type { EventSink } from '../observability/events.ts'
import type { Clock } from './clock.ts'
import { type Scored, scoresOf } from './evaluation.ts'
import type { ModelState } from './model-state.ts'
import type { Schedule } from './schedules.ts'
import { TensorSet } from './tensor-set.ts'
import { type PreparedBatch, scoreAll, type Training } from './training.ts'

export interface LocalOptions {
  readonly engine: Engine
  readonly model: ModelState
  readonly training: Training
  readonly schedule: Schedule
  readonly totalUpdates: number
  /** Scores every so many updates, besides the end; only at the end when 0. */
  readonly evaluateEvery: number
  readonly clock: Clock
  readonly events: EventSink
  /** Ends training early; the model is then as it was after the last whole update. */
  readonly signal: AbortSignal
}

export interface LocalResult {
  readonly reason: 'complete' | 'stopped'
  readonly version: number
  readonly examples: number
  /** To the last update: the final scores do not count. */
  readonly seconds: number
  /** Without examples when stopped. */
  readonly heldOut: Scored
}

export async function trainLocally(options: LocalOptions): Promise<LocalResult> {
  const { model, totalUpdates, evaluateEvery, clock, events, signal } = options
  const memory = new Memory(options)
  const startedAt = clock.now()
  let lastUpdateAt = startedAt
  let examples = 0
  let heldOut: Scored = { examples: 0, scores: {} }
  try {
    while (model.version < totalUpdates && !signal.aborted) {
      examples += await update(options, memory)
      lastUpdateAt = clock.now()
      const due = evaluateEvery > 0 && model.version % evaluateEvery === 0
      if (!signal.aborted && (due || model.version === totalUpdates)) heldOut = await score(options, memory)
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    memory.dispose()
  }
  const seconds = (lastUpdateAt - startedAt) / 1000
  events({ kind: 'finished', steps: model.version, examples, seconds })
  const reason = model.version === totalUpdates ? 'complete' : 'stopped'
  return { reason, version: model.version, examples, seconds, heldOut }
}

/** One update of the model; the number of examples in it. */
async function update(options: LocalOptions, memory: Memory): Promise<number> {
  const { model, training, schedule, clock, events, signal } = options
  const iterationSince = clock.now()
  const task = { shard: 0, position: model.version }
  const batch = await training.batch(task)
  const snapshot = model.snapshot()
  const { values } = memory
  try {
    const computingSince = clock.now()
    const rows = memory.gather('training', batch, { create: true })
    const computed = await training.computeUpdate(snapshot.parameters.named(), rows, batch, task, signal)
    const { loss, examples } = computed
    for (const [index, tensor] of values.tensors.entries()) tensor.set(computed.values[index]!)
    const tables = [...model.tables.keys()].map((name, table) => {
      return [name, { ids: batch.rows[table]!, gradients: computed.rows[table]! }] as const
    })
    const [version, applyingSince] = [model.version, clock.now()]
    const learningRate = schedule(version)
    await model.apply([{ worker: 0, examples, values, rows: new Map(tables) }], learningRate)
    computed.dispose()
    const now = clock.now()
    const [iterationMs, computeMs] = [now - iterationSince, applyingSince - computingSince]
    const waitMs = computingSince - iterationSince
    events({ kind: 'step', worker: 0, step: version, examples, loss, iterationMs, computeMs, waitMs })
    const applyMs = now - applyingSince
    events({
      kind: 'update',
      step: model.version,
      examples,
      loss,
      learningRate,
      staleness: 0,
      contributions: 1,
      applyMs,
    })
    return examples
  } finally {
    snapshot.release()
  }
}

async function score({ model, training, events }: LocalOptions, memory: Memory): Promise<Scored> {
  const snapshot = model.snapshot()
  try {
    const sums = await scoreAll(training, (batch) =>
      training.score(snapshot.parameters.named(), memory.gather('heldOut', batch, { create: false }), batch),
    )
    const scored = scoresOf(sums)
    if (scored.examples > 0) events({ kind: 'evaluation', step: snapshot.version, ...scored })
    return scored
  } finally {
    snapshot.release()
  }
}

/** An update, and rows of tables as the step takes them, in engine memory that is made once. */
class Memory {
  readonly #options: LocalOptions
  readonly values: TensorSet
  readonly #rows = new Map<string, readonly EngineTensor[]>()

  constructor(options: LocalOptions) {
    this.#options = options
    this.values = TensorSet.allocate(options.engine, options.model.manifest)
  }

  gather(use: 'training' | 'heldOut', batch: PreparedBatch, { create }: { readonly create: boolean }) {
    const { engine, model, training } = this.#options
    const rows = this.#rows.get(use) ?? training.rowMemory(engine, batch)
    this.#rows.set(use, rows)
    for (const [table, held] of [...model.tables.values()].entries()) {
      const ids = batch.rows[table]!
      const data = rows[table]!.data as Float32Array
      held.gather(ids, data.subarray(0, ids.length * held.spec.width), { create })
    }
    return rows
  }

  dispose(): void {
    this.values.release()
    for (const rows of this.#rows.values()) for (const tensor of rows) tensor.dispose()
  }
}
