import { describe, expect, test } from 'vitest'
import { constant, cosine, steps, warmUp } from './schedules.ts'

test('constant', () => {
  expect([0, 7, 1e6].map(constant(0.3))).toEqual([0.3, 0.3, 0.3])
})

test('steps change at the boundary, not after it', () => {
  const schedule = steps({ rate: 0.1, boundaries: [91, 136, 182], factor: 0.1 })
  expect(schedule(90)).toBe(0.1)
  expect(schedule(91)).toBeCloseTo(0.01, 12)
  expect(schedule(135)).toBeCloseTo(0.01, 12)
  expect(schedule(136)).toBeCloseTo(0.001, 12)
  expect(schedule(1000)).toBeCloseTo(0.0001, 12)
})

describe('cosine', () => {
  const schedule = cosine({ rate: 0.4, updates: 120, finalRate: 0.1 })
  test('starts at the rate, ends at the final rate and stays there', () => {
    expect(schedule(0)).toBeCloseTo(0.4, 12)
    expect(schedule(120)).toBeCloseTo(0.1, 12)
    expect(schedule(500)).toBeCloseTo(0.1, 12)
  })
  test('a third and a quarter of the way', () => {
    // cos(π/3) = 1/2, cos(π/4) = √2/2
    expect(schedule(40)).toBeCloseTo(0.1 + 0.3 * 0.75, 12)
    expect(schedule(30)).toBeCloseTo(0.1 + (0.3 * (1 + Math.SQRT1_2)) / 2, 12)
  })
})

test('warm-up rises linearly to the schedule beneath and does not shift it', () => {
  const schedule = warmUp({ updates: 5 }, steps({ rate: 1, boundaries: [3], factor: 0.5 }))
  expect([0, 1, 2, 3, 4, 5, 9].map(schedule)).toEqual([0.2, 0.4, 0.6, 0.4, 0.5, 0.5, 0.5])
})
