// SPDX-License-Identifier: Apache-2.0
/**
 * The same training in one process, without a server: the baseline for every claim about federation. It uses the same
 * step, the same update program and the same schedule; a federation of one synchronous worker gives the same bits.
 */
import type { Engine } from '../engine/engine.ts'
import type { EventSink } from '../observability/events.ts'
import type { Clock } from './clock.ts'
import { type Scored, scoresOf } from './evaluation.ts'
import type { ModelState } from './model-state.ts'
import type { Schedule } from './schedules.ts'
import { TensorSet } from './tensor-set.ts'
import type { Training } from './training.ts'

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
  const { model, training, totalUpdates, evaluateEvery, clock, events, signal } = options
  const startedAt = clock.now()
  let lastUpdateAt = startedAt
  let examples = 0
  let heldOut: Scored = { examples: 0, scores: {} }
  try {
    while (model.version < totalUpdates && !signal.aborted) {
      examples += await update(options)
      lastUpdateAt = clock.now()
      const due = evaluateEvery > 0 && model.version % evaluateEvery === 0
      if (!signal.aborted && (due || model.version === totalUpdates)) heldOut = await score(options)
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    await training.close()
  }
  const seconds = (lastUpdateAt - startedAt) / 1000
  events({ kind: 'finished', steps: model.version, examples, seconds })
  const reason = model.version === totalUpdates ? 'complete' : 'stopped'
  return { reason, version: model.version, examples, seconds, heldOut }
}

/** One update of the model; the number of examples in it. */
async function update({ engine, model, training, schedule, clock, events, signal }: LocalOptions): Promise<number> {
  const iterationSince = clock.now()
  const batch = await training.nextBatch()
  const snapshot = model.snapshot()
  const values = TensorSet.allocate(engine, model.manifest)
  try {
    const computingSince = clock.now()
    const computed = await training.computeUpdate(snapshot.parameters.named(), batch, signal)
    const { loss, examples } = computed
    for (const [index, tensor] of values.tensors.entries()) tensor.set(computed.values[index]!)
    computed.dispose()
    const [version, applyingSince] = [model.version, clock.now()]
    const learningRate = schedule(version)
    await model.apply([{ worker: 0, examples, values }], learningRate)
    const now = clock.now()
    const [iterationMs, computeMs] = [now - iterationSince, applyingSince - computingSince]
    events({
      kind: 'step',
      worker: 0,
      step: version,
      loss,
      iterationMs,
      computeMs,
      waitMs: computingSince - iterationSince,
    })
    const applyMs = now - applyingSince
    events({ kind: 'update', step: model.version, loss, learningRate, staleness: 0, contributions: 1, applyMs })
    return examples
  } finally {
    values.release()
    snapshot.release()
  }
}

async function score({ model, training, events }: LocalOptions): Promise<Scored> {
  const snapshot = model.snapshot()
  try {
    const scored = scoresOf(await training.score(snapshot.parameters.named()))
    if (scored.examples > 0) events({ kind: 'evaluation', step: snapshot.version, ...scored })
    return scored
  } finally {
    snapshot.release()
  }
}
