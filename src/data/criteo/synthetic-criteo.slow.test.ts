import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { criteoSources } from './criteo-source.ts'
import { inspectCriteo } from './inspect-criteo.ts'
import { categoryShapes, integerShapes } from './shape.ts'
import { writeSyntheticCriteo } from './synthetic-criteo.ts'

const root = mkdtempSync(join(tmpdir(), 'criteo-shape-'))
afterAll(() => rmSync(root, { recursive: true }))

// Distinct values and share of them seen once (%) in the 137,139 real rows, C1 to C26.
const measured = [
  [616, 47],
  [528, 5],
  [61763, 89],
  [32222, 75],
  [154, 34],
  [11, 0],
  [8634, 21],
  [292, 39],
  [3, 0],
  [13982, 46],
  [4087, 13],
  [56396, 88],
  [2944, 6],
  [26, 0],
  [5897, 30],
  [46381, 84],
  [10, 0],
  [2827, 24],
  [1341, 21],
  [3, 0],
  [52249, 86],
  [12, 25],
  [14, 0],
  [14595, 60],
  [54, 17],
  [11138, 59],
] as const

test('as many rows as were measured have the missing rates, ranges, cardinalities and skew of the real ones', async () => {
  const directory = join(root, 'large')
  const rows = 137_139
  const { bayes } = await writeSyntheticCriteo({ directory, rows, seed: 1, files: 1, gzip: false })
  const seen = await inspectCriteo(await criteoSources(directory))
  expect(seen).toMatchObject({ rows, malformed: { count: 0 } })
  expect(Math.abs(seen.clickRate - 0.2568)).toBeLessThan(0.01)
  expect(bayes.all.clickRate).toBeCloseTo(seen.clickRate, 10)
  expect(Math.abs(bayes.all.auc - 0.8)).toBeLessThan(0.015)
  // Within a percentage point, which is more than seven standard errors of a share of so many rows.
  for (const [column, { missing, least, greatest }] of seen.integers.entries()) {
    const shape = integerShapes[column]!
    expect(Math.abs(missing - shape.missing)).toBeLessThan(0.01)
    expect(least).toBe(shape.quantiles[0])
    expect(greatest).toBeLessThanOrEqual(shape.quantiles[4])
    expect(greatest).toBeGreaterThan(shape.quantiles[3])
  }
  for (const [column, { missing, distinct, commonest, once }] of seen.categories.entries()) {
    const shape = categoryShapes[column]!
    const [realDistinct, realOnce] = measured[column]!
    expect(Math.abs(missing - shape.missing), `C${column + 1} missing`).toBeLessThan(0.01)
    expect(Math.abs(commonest - shape.commonest), `C${column + 1} commonest`).toBeLessThan(0.01)
    // Fitted: within a tenth (or two values), and 12 points (and two values) of the share seen once.
    expect(Math.abs(distinct - realDistinct), `C${column + 1} distinct ${distinct}`).toBeLessThan(realDistinct / 10 + 2)
    expect(Math.abs(once - realOnce / 100), `C${column + 1} once ${once}`).toBeLessThan(0.12 + 2 / realDistinct)
  }
})
