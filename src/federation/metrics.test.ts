// SPDX-License-Identifier: Apache-2.0
/** Against the definition over all pairs, and against scores worked out by hand. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { addSums, aucOfHistograms, clickScores, exactAuc } from './metrics.ts'

/** The share of pairs of a click and another example that are in the right order. */
function aucByPairs(scores: readonly number[], labels: readonly number[]): number {
  let [wins, pairs] = [0, 0]
  for (const [i, a] of scores.entries())
    for (const [j, b] of scores.entries())
      if (labels[i] === 1 && labels[j] === 0) {
        pairs++
        wins += a > b ? 1 : a === b ? 0.5 : 0
      }
  return wins / pairs
}

/** Few values, so that ties are many. */
const scored = fc
  .array(fc.record({ score: fc.integer({ min: -6, max: 6 }), label: fc.integer({ min: 0, max: 1 }) }), {
    maxLength: 40,
  })
  .map((rows) => [...rows, { score: 2, label: 0 }, { score: 1, label: 1 }])

test('exactAuc is the share of pairs in order, ties half', () => {
  fc.assert(
    fc.property(scored, (rows) => {
      const [scores, labels] = [rows.map(({ score }) => score), rows.map(({ label }) => label)]
      expect(exactAuc(scores, labels)).toBeCloseTo(aucByPairs(scores, labels), 12)
    }),
    { seed: 5, numRuns: 200 },
  )
})

test('exactAuc: the example of scikit-learn’s roc_auc_score, both ends, and none without both labels', () => {
  expect(exactAuc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])).toBe(0.75)
  expect(exactAuc([1, 2, 3], [0, 1, 1])).toBe(1)
  expect(exactAuc([1, 2, 3], [1, 0, 0])).toBe(0)
  expect(exactAuc([7, 7, 7], [1, 0, 0])).toBe(0.5)
  expect(exactAuc([1, 2], [1, 1])).toBeNaN()
})

function histograms(rows: readonly { score: number; label: number }[], width: number) {
  const [clicks, others] = [new Float64Array(20), new Float64Array(20)]
  for (const { score, label } of rows) (label === 1 ? clicks : others)[Math.floor((score + 7) / width)]! += 1
  return [clicks, others] as const
}

test('aucOfHistograms: exact with a bin for each score, else within the bound that it states', () => {
  fc.assert(
    fc.property(scored, (rows) => {
      const exact = exactAuc(
        rows.map(({ score }) => score),
        rows.map(({ label }) => label),
      )
      expect(aucOfHistograms(...histograms(rows, 1)).auc).toBeCloseTo(exact, 12)
      const coarse = aucOfHistograms(...histograms(rows, 3))
      expect(Math.abs(coarse.auc - exact)).toBeLessThanOrEqual(coarse.error + 1e-12)
    }),
    { seed: 6, numRuns: 200 },
  )
  // The bound is tight: all in one bin, in the right order.
  const one = aucOfHistograms(Float64Array.of(2), Float64Array.of(3))
  expect(one).toEqual({ auc: 0.5, error: 0.5 })
})

test('sums of two workers, scored together', () => {
  const parts = [
    {
      ...{ count: 3, correct: 2, logLossSum: 1.5, predictionSum: 1.25, labelSum: 1 },
      ...{ clickLogits: Float64Array.of(0, 0, 1), otherLogits: Float64Array.of(1, 1, 0) },
    },
    {
      ...{ count: 1, correct: 0, logLossSum: 0.9, predictionSum: 0.25, labelSum: 1 },
      ...{ clickLogits: Float64Array.of(1, 0, 0), otherLogits: Float64Array.of(0, 0, 0) },
    },
  ]
  const total = addSums(parts)
  expect(total).toMatchObject({ count: 4, clickLogits: Float64Array.of(1, 0, 1) })
  // Pairs: the click in bin 2 beats both others; that in bin 0 ties with one and loses to the other.
  const { logLoss, ...scores } = clickScores(total)!
  expect(scores).toEqual({ auc: 2.5 / 4, aucError: 0.5 / 4, accuracy: 0.5, calibration: 0.75 })
  expect(logLoss).toBeCloseTo(0.6, 12)
  expect(parts[0]!.clickLogits).toEqual(Float64Array.of(0, 0, 1))
})

test('sums of another kind, none, and histograms that do not fit', () => {
  expect(clickScores({ lossSum: 1, correct: 1, count: 2 })).toBeUndefined()
  const none = { count: 0, clickLogits: new Float64Array(2), otherLogits: new Float64Array(2) }
  expect(clickScores(none)).toBeUndefined()
  expect(() => addSums([{ a: 1 }, { a: new Float64Array(1) }])).toThrow('a histogram there')
  expect(() => addSums([{ a: new Float64Array(2) }, { a: new Float64Array(1) }])).toThrow('bins')
})
