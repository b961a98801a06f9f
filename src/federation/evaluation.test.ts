import { expect, test } from 'vitest'
import { Evaluation, scoresOf } from './evaluation.ts'
import type { Snapshot } from './model-state.ts'

function snapshot(): Snapshot & { released: number } {
  const fake = { version: 3, released: 0, release: () => fake.released++, parameters: undefined, slots: new Map() }
  return fake as unknown as Snapshot & { released: number }
}

test('sums are added over workers, and means taken over all examples, not over workers', async () => {
  const held = snapshot()
  const evaluation = new Evaluation(held, [0, 1])
  evaluation.add(1, { lossSum: 12, correct: 3, count: 30 })
  expect(held.released).toBe(0)
  evaluation.add(0, { lossSum: 3, correct: 9, count: 10 })
  await evaluation.done
  expect(held.released).toBe(1)
  expect(scoresOf(evaluation.sums())).toEqual({ examples: 40, scores: { loss: 0.375, accuracy: 0.3 } })
})

test('a worker that is gone is not waited for; one that was not asked does not count', async () => {
  const evaluation = new Evaluation(snapshot(), [0, 1])
  evaluation.add(7, { count: 1000, correct: 1000 })
  evaluation.drop(1)
  evaluation.add(0, { count: 4, correct: 1 })
  evaluation.add(0, { count: 4, correct: 4 })
  await evaluation.done
  expect(scoresOf(evaluation.sums())).toEqual({ examples: 4, scores: { accuracy: 0.25 } })
})

test('nobody scored: no examples and no scores', async () => {
  const evaluation = new Evaluation(snapshot(), [])
  await evaluation.done
  expect(scoresOf(evaluation.sums())).toEqual({ examples: 0, scores: {} })
})
