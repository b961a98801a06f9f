import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { philox4x32, RandomStream } from './philox.ts'

const words = (...values: number[]) => Uint32Array.from(values)

describe('philox4x32', () => {
  // Random123 1.14, tests/kat_vectors, lines "philox4x32 10".
  test.each([
    [words(0, 0, 0, 0), words(0, 0), '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
    [
      words(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff),
      words(0xffffffff, 0xffffffff),
      '408f276d 41c83b0e a20bc7c6 6d5451fd',
    ],
    [
      words(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344),
      words(0xa4093822, 0x299f31d0),
      'd16cfe09 94fdcceb 5001e420 24126ea1',
    ],
  ])('gives the published words', (counter, key, expected) => {
    const out = new Uint32Array(4)
    philox4x32(counter, key, out)
    expect([...out].map((word) => word.toString(16).padStart(8, '0')).join(' ')).toBe(expected)
  })
})

describe('RandomStream', () => {
  const draw = (seed: number, purpose: string) => {
    const stream = new RandomStream(seed, purpose)
    return Array.from({ length: 6 }, () => stream.uint32())
  }

  test('is a function of seed and purpose, and differs in either', () => {
    const seen = new Set<string>()
    const seeds = [0, 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]
    const purposes = ['', 'a', 'a\0', 'b', 'x'.repeat(12), 'x'.repeat(16), 'x'.repeat(17), 'conv2_1/conv1/kernel']
    for (const seed of seeds) {
      for (const purpose of purposes) {
        expect(draw(seed, purpose)).toEqual(draw(seed, purpose))
        seen.add(draw(seed, purpose).join())
      }
    }
    expect(seen.size).toBe(seeds.length * purposes.length)
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53]) expect(() => new RandomStream(bad, '')).toThrow(/seed/)
  })

  test('below is uniform and never reaches its bound', () => {
    const stream = new RandomStream(7, 'below')
    const counts = new Array<number>(7).fill(0)
    for (let draws = 0; draws < 70_000; draws++) counts[stream.below(7)]!++
    // χ² with 6 degrees of freedom: 22.5 has probability 0.001.
    expect(counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0)).toBeLessThan(22.5)
    expect(new RandomStream(0, '').below(1)).toBe(0)
    // A bound of 3·2^30 takes the top quarter of words into its first third unless those are drawn again.
    const large = new RandomStream(1, 'large')
    let lower = 0
    for (let draws = 0; draws < 30_000; draws++) lower += large.below(3 * 2 ** 30) < 2 ** 30 ? 1 : 0
    expect(Math.abs(lower - 10_000)).toBeLessThan(5 * Math.sqrt(30_000 * (2 / 9)))
  })

  test('normal has the moments of a normal', () => {
    const stream = new RandomStream(3, 'normal')
    const values = Float64Array.from({ length: 100_000 }, () => stream.normal())
    const moment = (power: number) => values.reduce((sum, value) => sum + value ** power, 0) / values.length
    // Five standard errors of each moment: √(1, 2, 15, 96)/√n.
    expect(Math.abs(moment(1))).toBeLessThan(0.016)
    expect(Math.abs(moment(2) - 1)).toBeLessThan(0.023)
    expect(Math.abs(moment(3))).toBeLessThan(0.062)
    expect(Math.abs(moment(4) - 3)).toBeLessThan(0.155)
  })

  test('permutation holds every number once and depends on the seed', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 300 }), fc.nat(), (length, seed) => {
        const order = new RandomStream(seed, 'p').permutation(length)
        expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length }, (_, index) => index))
      }),
    )
    expect(new RandomStream(1, 'p').permutation(50)).not.toEqual(new RandomStream(2, 'p').permutation(50))
    // Each of the 6 orders of 3 as often.
    const stream = new RandomStream(5, 'orders')
    const counts = new Map<string, number>()
    for (let draws = 0; draws < 6000; draws++) {
      const order = stream.permutation(3).join()
      counts.set(order, (counts.get(order) ?? 0) + 1)
    }
    expect(counts.size).toBe(6)
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150)
  })
})
