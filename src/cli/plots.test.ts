// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import type { CloisterEvent } from '../observability/events.ts'
import { eventLine } from '../observability/run-log.ts'
import { writePlots } from './plots.ts'

const directories: string[] = []
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

const update = (step: number, loss: number): CloisterEvent => ({
  ...{ kind: 'update', step, examples: 8, loss, learningRate: 0.1, staleness: 0, contributions: 1, applyMs: 1 },
})
const evaluation = (step: number, scores: Record<string, number>): CloisterEvent => ({
  ...{ kind: 'evaluation', step, examples: 10, scores },
})

async function plots(events: readonly CloisterEvent[], tail = '') {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-plots-'))
  directories.push(directory)
  const lines = events.map((event) => eventLine(event, 'server', new Date(0)))
  writeFileSync(join(directory, 'events.jsonl'), lines.join('') + tail)
  await writePlots(directory)
  return (file: string): string | undefined =>
    existsSync(join(directory, file)) ? readFileSync(join(directory, file), 'utf8') : undefined
}

const lines = (svg: string | undefined): string[] =>
  [...svg!.matchAll(/<polyline points="([^"]*)"/g)].map(([, points]) => points!)

test('a curve for each score that there is, at the right places', async () => {
  const file = await plots([
    update(0, 4),
    update(5, 2),
    evaluation(5, { logLoss: 3, auc: 0.75 }),
    update(10, 0),
    evaluation(10, { logLoss: 1, auc: 0.875 }),
  ])
  // From 0 to 10 over 64 to 700, from 0 to 4 over 310 to 40.
  expect(lines(file('loss.svg'))).toEqual(['64.0,40.0 382.0,175.0 700.0,310.0', '382.0,107.5 700.0,242.5'])
  expect(file('loss.svg')).toContain('held out, at the end 1.000')
  expect(lines(file('auc.svg'))).toHaveLength(1)
  expect(file('auc.svg')).toContain('held out, at the end 0.875')
  expect(file('accuracy.svg')).toBeUndefined()
})

test('what a resumed server did anew counts once, torn lines and values that are no numbers not at all', async () => {
  const events = [update(1, 4), update(2, 3), update(3, 9), { kind: 'resumed', step: 2 } as const, update(3, 2)]
  const file = await plots(
    [...events, update(4, Number.NaN), update(5, 1)],
    '{"time":"1970","source":"server","kind":"update"',
  )
  expect(lines(file('loss.svg'))[0]!.split(' ')).toHaveLength(4)
  expect(file('loss.svg')).not.toContain('NaN')
})

test('long runs are averaged to what a picture can show', async () => {
  const file = await plots(Array.from({ length: 10_000 }, (_, index) => update(index + 1, index % 2)))
  const points = lines(file('loss.svg'))[0]!.split(' ')
  expect(points.length).toBeGreaterThan(200)
  expect(points.length).toBeLessThanOrEqual(300)
  expect(new Set(points.map((point) => point.split(',')[1])).size).toBe(1)
})

test('of several servers the first draws; without events there is no picture', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-plots-'))
  directories.push(directory)
  await writePlots(directory)
  expect(existsSync(join(directory, 'loss.svg'))).toBe(false)
  const both = [update(1, 2), update(2, 2)].flatMap((event) =>
    ['server', 'server1'].map((of) => eventLine(event, of, new Date(0))),
  )
  writeFileSync(join(directory, 'events.jsonl'), both.join(''))
  await writePlots(directory)
  expect(lines(readFileSync(join(directory, 'loss.svg'), 'utf8'))[0]!.split(' ')).toHaveLength(2)
})

test('the picture is well-formed whatever its values', async () => {
  for (const value of [0, -3, 1e-12, 1e9, 0.123456789]) {
    const svg = (await plots([update(1, value), update(2, value)]))('loss.svg')!
    expect(svg).not.toMatch(/NaN|Infinity|undefined/)
    expect(svg.match(/<text [^>]*text-anchor="end">/g)!.length).toBeGreaterThan(2)
  }
})
