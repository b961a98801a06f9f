import { afterAll, expect, test } from 'vitest'
import { kinds, linearModel } from '../../test/support/federation.ts'
import { MemoryCheckpoints } from '../../test/support/memory-checkpoints.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { systemClock } from './clock.ts'
import { Deferred } from './deferred.ts'
import type { Progress } from './saved-state.ts'
import { Saver } from './saver.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

const none = { planDigest: undefined, prepared: undefined, auditHead: undefined }
const progress: Progress = { version: 1, examples: 0, seconds: 0, positions: [], workers: [], ...none }
const atOnce = () => Promise.resolve()

function begin(begunAt = 0, { leads = true } = {}) {
  const [checkpoints, events] = [new MemoryCheckpoints(), [] as CloisterEvent[]]
  const saver = new Saver({
    checkpoints,
    begunAt,
    leads,
    clock: systemClock,
    events: (event) => events.push(event),
  })
  return { checkpoints, events, saver, model: linearModel(engine) }
}

test('a step is durable when every server has it, and not before', async () => {
  const { checkpoints, events, saver, model } = begin()
  const elsewhere = new Deferred<void>()
  const saved = saver.save(model, 4, progress, () => elsewhere.promise)
  while (checkpoints.steps.length === 0) await new Promise(setImmediate)
  expect(checkpoints.durableStep).toBe(0)
  expect(saver.durableStep).toBe(0)
  elsewhere.resolve()
  expect(await saved).toBe('')
  expect([saver.durableStep, checkpoints.durableStep]).toEqual([4, 4])
  expect(kinds(events, 'checkpointed')).toMatchObject([{ step: 4 }])
})

test('what a follower saved is durable when it is told so', async () => {
  const { checkpoints, saver, model } = begin(0, { leads: false })
  expect(await saver.save(model, 4, progress, atOnce)).toBe('')
  expect([saver.durableStep, checkpoints.durableStep]).toEqual([0, 0])
  saver.declare(4)
  await saver.idle()
  expect([saver.durableStep, checkpoints.durableStep]).toEqual([4, 4])
})

test('one save at a time, and none of a step that is saved', async () => {
  const { checkpoints, saver, model } = begin()
  const first = saver.save(model, 5, progress, atOnce)
  expect(saver.save(model, 6, progress, atOnce)).toBeUndefined()
  await saver.idle()
  expect(await first).toBe('')
  expect(saver.save(model, 5, progress, atOnce)).toBeUndefined()
  expect(checkpoints.steps).toEqual([5])
})

test.each(['here', 'elsewhere'])(
  'a failure %s is told, changes nothing, and the next save has everything',
  async (where) => {
    const { checkpoints, events, saver, model } = begin()
    if (where === 'here') checkpoints.failure = new Error('disk full')
    const failing = where === 'here' ? atOnce : () => Promise.reject(new Error('disk full'))
    expect(await saver.save(model, 2, progress, failing)).not.toBe('')
    expect(saver.durableStep).toBe(0)
    expect(kinds(events, 'warning').length).toBe(1)
    checkpoints.failure = undefined
    expect(await saver.save(model, 3, progress, atOnce)).toBe('')
    expect(saver.durableStep).toBe(3)
  },
)

test('without a place for checkpoints nothing is saved', async () => {
  const { model } = begin()
  const saver = new Saver({
    checkpoints: undefined,
    begunAt: 0,
    leads: true,
    clock: systemClock,
    events: () => undefined,
  })
  expect(saver.save(model, 1, progress, atOnce)).toBeUndefined()
  expect(saver.durableStep).toBe(0)
})
