// SPDX-License-Identifier: Apache-2.0
import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import type { CloisterEvent } from '../observability/events.ts'
import { createJsonLines, createProgress } from './progress.ts'

const update = (step: number): CloisterEvent => ({
  kind: 'update',
  step,
  examples: 16,
  loss: 2.5,
  learningRate: 0.1,
  staleness: 0,
  contributions: 1,
  applyMs: 1,
})
const step = (at: number): CloisterEvent => ({
  kind: 'step',
  worker: 0,
  step: at,
  examples: 16,
  loss: 2.25,
  iterationMs: 250,
  computeMs: 240,
  waitMs: 10,
})
const warning: CloisterEvent = { kind: 'warning', error: { code: 'some-code', message: 'a word', hint: 'Do it.' } }
const refusedUpdate = (code: string): CloisterEvent => ({
  kind: 'update-refused',
  worker: 1,
  step: 3,
  error: { code, message: 'why', hint: '' },
})

function lines() {
  let time = 0
  let text = ''
  const output = {
    write: (part: string) => {
      text += part
    },
  }
  const progress = createProgress(output, () => new Date(time), { updates: 40 })
  return { progress, pass: (ms: number) => (time += ms), text: () => text }
}

test('without a terminal: the first update, then one every ten seconds', () => {
  const { progress, pass, text } = lines()
  for (let at = 1; at <= 30; at++) {
    progress.show('server', update(at))
    pass(1000)
  }
  expect([...text().matchAll(/update: (\d+)/g)].map(([, at]) => Number(at))).toEqual([1, 11, 21])
})

test('what is done before one could wonder is not said', () => {
  const { progress, pass, text } = lines()
  const fetching = (done: number): CloisterEvent => ({ kind: 'progress', activity: 'fetch-data', done, total: 9 })
  progress.show('data', fetching(0))
  progress.show('data', fetching(9))
  expect(text()).toBe('')
  progress.show('data', fetching(1))
  pass(10_000)
  progress.show('data', fetching(5))
  expect(text()).toBe('data: fetch-data: 5 of 9\n')
})

test('a warning is said once, whichever process has it', () => {
  const { progress, text } = lines()
  for (const source of ['server', 'worker0', 'worker1']) progress.show(source, warning)
  expect(text()).toBe('server: WARNING some-code: a word. Do it.\n')
})

test('a push that comes after the last update is no news; one that is too old is', () => {
  const { progress, text } = lines()
  progress.show('server', refusedUpdate('training-finished'))
  progress.show('server', refusedUpdate('push-stale'))
  expect(text()).toBe('server: refused step 3 of worker 1: push-stale: why\n')
})

test('on a terminal: a bar for each process, measured against the updates of the job', () => {
  const terminal = Object.assign(new PassThrough({ encoding: 'utf8' }), { isTTY: true, columns: 120 })
  let time = 0
  const progress = createProgress(terminal, () => new Date(time), { updates: 40 })
  progress.show('server', update(1))
  progress.show('worker0', step(0))
  progress.show('server', { kind: 'evaluation', step: 1, examples: 9, scores: { auc: 0.75, accuracy: 0.5 } })
  time = 500
  progress.show('server', { ...update(20), examples: 48 } as CloisterEvent)
  progress.show('worker0', step(19))
  progress.show('server', warning)
  progress.stop()
  const drawn = String(terminal.read())
  expect(drawn).toMatch(/server {4}█{12}░{12} 20\/40 loss 2\.500, 96 examples\/s, AUC 0\.7500 ETA \S/)
  expect(drawn).toMatch(/worker0 {3}█{12}░{12} 20\/40 loss 2\.250, 0\.25 s a step ETA \S/)
  expect(drawn).toContain('server: WARNING some-code')
  expect(drawn).not.toContain('NULL')
  expect(drawn).not.toContain('LLs')
})

test('for machines: every event, as it comes', () => {
  let text = ''
  const lines = createJsonLines({ write: (part) => (text += part) }, () => new Date(0))
  lines.show('worker1', step(7))
  lines.show('data', { kind: 'progress', activity: 'fetch-data', done: 9, total: 9 })
  expect(text.split('\n').map((line) => line && JSON.parse(line))).toEqual([
    { time: '1970-01-01T00:00:00.000Z', source: 'worker1', ...step(7) },
    { time: '1970-01-01T00:00:00.000Z', source: 'data', kind: 'progress', activity: 'fetch-data', done: 9, total: 9 },
    '',
  ])
})
