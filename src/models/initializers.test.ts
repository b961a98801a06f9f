import { describe, expect, test } from 'vitest'
import { drawInitialValues } from './initializers.ts'
import { RandomStream } from './philox.ts'

const draw = (className: string, config: Record<string, unknown>, shape: number[]) =>
  drawInitialValues({ className, config }, shape, new RandomStream(1, className))

function statistics(values: Float32Array) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length
  return { mean, variance, greatest: values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) }
}

test('constants', () => {
  expect([...draw('Zeros', {}, [2, 2])]).toEqual([0, 0, 0, 0])
  expect([...draw('Ones', {}, [3])]).toEqual([1, 1, 1])
  expect([...draw('Constant', { value: 0.25 }, [2])]).toEqual([0.25, 0.25])
  expect([...draw('Identity', { gain: 2 }, [2, 2])]).toEqual([2, 0, 0, 2])
})

describe('random values', () => {
  const shape = [3, 3, 20, 50] // fan-in 180, fan-out 450

  test.each([
    ['RandomUniform', { minval: 1, maxval: 3 }, 2, 1 / 3],
    ['RandomNormal', { mean: 2, stddev: 0.5 }, 2, 0.25],
    ['TruncatedNormal', { mean: 2, stddev: 0.5 }, 2, 0.25 * 0.7737413],
    ['VarianceScaling', { scale: 2, mode: 'fanIn', distribution: 'normal', seed: null }, 0, 2 / 180],
    ['VarianceScaling', { scale: 1, mode: 'fanAvg', distribution: 'uniform' }, 0, 1 / 315],
    ['VarianceScaling', { scale: 3, mode: 'fanOut', distribution: 'normal' }, 0, 3 / 450],
  ])('%s %o has mean %d and variance %d', (className, config, mean, variance) => {
    const got = statistics(draw(className, config, shape))
    // Five standard errors with 9,000 values; the kurtosis of all three distributions is at most 3.
    expect(Math.abs(got.mean - mean)).toBeLessThan(5 * Math.sqrt(variance / 9000))
    expect(Math.abs(got.variance / variance - 1)).toBeLessThan(5 * Math.sqrt(2 / 9000))
  })

  test('truncated at two deviations, uniform at its limits', () => {
    expect(statistics(draw('TruncatedNormal', { stddev: 1 }, shape)).greatest).toBeLessThanOrEqual(2)
    expect(statistics(draw('TruncatedNormal', { stddev: 1 }, shape)).greatest).toBeGreaterThan(1.9)
    const limit = Math.sqrt(3 / 315)
    const uniform = draw('VarianceScaling', { scale: 1, mode: 'fanAvg', distribution: 'uniform' }, shape)
    expect(statistics(uniform).greatest).toBeLessThanOrEqual(limit)
    expect(statistics(uniform).greatest).toBeGreaterThan(0.99 * limit)
  })

  test.each([[[6, 4]], [[4, 6]], [[5, 5]], [[2, 3, 4]]])('orthogonal %o', (shape) => {
    const columns = shape.at(-1)!
    const values = draw('Orthogonal', { gain: 3 }, shape)
    const rows = values.length / columns
    const at = (row: number, column: number) => values[row * columns + column]!
    const few = Math.min(rows, columns)
    for (let a = 0; a < few; a++) {
      for (let b = 0; b < few; b++) {
        let product = 0
        for (let k = 0; k < Math.max(rows, columns); k++) {
          product += rows < columns ? at(a, k) * at(b, k) : at(k, a) * at(k, b)
        }
        expect(product).toBeCloseTo(a === b ? 9 : 0, 4)
      }
    }
  })
})

test('an unknown initializer is refused', () => {
  expect(() => draw('Mystery', {}, [1])).toThrow(expect.objectContaining({ code: 'initializer-unsupported' }))
})
