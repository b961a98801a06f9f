import { expect, test } from 'vitest'
import { asynchronous } from './asynchronous.ts'

const situation = { version: 10, expected: new Set([0, 1]), now: 0 }

test('a push is applied at once, at the full rate when fresh', () => {
  const contribution = { worker: 1, baseVersion: 10 }
  expect(asynchronous({ stalenessExponent: 0.5 }).add(contribution, situation)).toEqual({
    kind: 'apply',
    contributions: [contribution],
    rateFactor: 1,
  })
})

test('the rate shrinks with staleness', () => {
  const factor = (baseVersion: number, stalenessExponent: number) => {
    const decision = asynchronous({ stalenessExponent }).add({ worker: 0, baseVersion }, situation)
    return decision.kind === 'apply' ? decision.rateFactor : undefined
  }
  expect(factor(7, 1)).toBeCloseTo(1 / 4, 12)
  expect(factor(7, 0.5)).toBeCloseTo(1 / 2, 12)
  expect(factor(2, 0.5)).toBeCloseTo(1 / 3, 12)
  expect(factor(2, 0)).toBe(1)
})

test('what is staler than the bound is dropped, what is exactly at it is not', () => {
  const strategy = asynchronous({ maxStaleness: 3, stalenessExponent: 0 })
  expect(strategy.add({ worker: 0, baseVersion: 7 }, situation).kind).toBe('apply')
  const dropped = strategy.add({ worker: 0, baseVersion: 6 }, situation)
  expect(dropped).toMatchObject({ kind: 'drop', contribution: { baseVersion: 6 }, error: { code: 'push-stale' } })
})
