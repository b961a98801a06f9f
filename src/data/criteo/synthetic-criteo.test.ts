import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, expect, test } from 'vitest'
import { BayesScores } from './click-model.ts'
import { integerAt, RowSource } from './draw-row.ts'
import { integerShapes } from './shape.ts'
import { writeSyntheticCriteo } from './synthetic-criteo.ts'

const root = mkdtempSync(join(tmpdir(), 'criteo-made-'))
afterAll(() => rmSync(root, { recursive: true }))

test('quantiles of the integers are those measured', () => {
  for (const shape of integerShapes) {
    const at = [0, 0.5, 0.9, 0.99, 1 - 1e-6].map((uniform) => integerAt(shape, uniform))
    for (const [index, value] of at.entries()) expect(Math.abs(value - shape.quantiles[index]!)).toBeLessThanOrEqual(1)
  }
})

test('columns of one missing rate are missing together', () => {
  const source = new RowSource(1, 'test')
  for (let row = 0; row < 1000; row++) {
    const { ranks } = source.draw()
    expect(new Set([18, 19, 24, 25].map((column) => ranks[column] === -1)).size).toBe(1)
  }
})

test('the same seed gives the same bytes, in files, compressed or not; another seed others', async () => {
  const make = async (name: string, options: { seed: number; files: number; gzip: boolean }) => {
    const directory = join(root, name)
    const { files } = await writeSyntheticCriteo({ directory, rows: 2500, ...options })
    return { directory, files }
  }
  const one = await make('one', { seed: 4, files: 1, gzip: false })
  const text = readFileSync(join(one.directory, 'train.txt'))
  const three = await make('three', { seed: 4, files: 3, gzip: true })
  expect(three.files).toEqual(['day_0.gz', 'day_1.gz', 'day_2.gz'])
  const parts = three.files.map((name) => gunzipSync(readFileSync(join(three.directory, name))))
  expect(Buffer.concat(parts).equals(text)).toBe(true)
  const other = await make('other', { seed: 5, files: 1, gzip: false })
  expect(readFileSync(join(other.directory, 'train.txt')).equals(text)).toBe(false)
  await expect(make('one', { seed: 4, files: 1, gzip: false })).rejects.toMatchObject({ code: 'data-exists' })
})

test('Bayes scores against their definitions', () => {
  const pairs = [
    [0.1, 0],
    [0.4, 0],
    [0.35, 1],
    [0.8, 1],
  ] as const
  const scores = new BayesScores()
  for (const [probability, label] of pairs) scores.add(probability, label)
  const { auc, logLoss, accuracy, clickRate } = scores.result()
  // scikit-learn's own example of roc_auc_score.
  expect([auc, accuracy, clickRate]).toEqual([0.75, 0.75, 0.5])
  expect(logLoss).toBeCloseTo(-(Math.log(0.9) + Math.log(0.6) + Math.log(0.35) + Math.log(0.8)) / 4, 12)
})
