// SPDX-License-Identifier: Apache-2.0
/** The real TensorBoard reads what is written: every value at its step, the graph, and what a resumed server does anew. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { python, requires } from '../../test/requirements.ts'
import type { CloisterEvent } from './events.ts'
import { openTensorboardLog } from './tensorboard.ts'

const read = `
import json, sys
from tensorboard.backend.event_processing import event_accumulator
accumulator = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
accumulator.Reload()
print(json.dumps({
  'scalars': {tag: [[e.step, e.value if abs(e.value) < 1e38 else str(e.value)] for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()['scalars']},
  'graph': [node.name for node in accumulator.Graph().node] if accumulator.Tags()['graph'] else None,
  'wallTime': accumulator.FirstEventTimestamp(),
}))
`

const directories: string[] = []
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

function log() {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-tensorboard-'))
  directories.push(directory)
  let time = 1_700_000_000_000
  const failures: unknown[] = []
  const opened = openTensorboardLog({
    directory: join(directory, 'server'),
    now: () => new Date(time),
    onFailure: (error) => failures.push(error),
  })
  const readBack = () =>
    JSON.parse(execFileSync(python, ['-c', read, join(directory, 'server')], { encoding: 'utf8', stdio: 'pipe' }))
  return { ...opened, directory, failures, readBack, pass: (ms: number) => (time += ms) }
}

const update = (step: number, loss = step / 8): CloisterEvent => ({
  kind: 'update',
  step,
  examples: 32,
  loss,
  learningRate: 0.25,
  staleness: 3,
  contributions: 2,
  applyMs: 1,
})

test('nothing is written before there is something, and a file that cannot be written ends the log only', () => {
  const { emit, close, directory, failures } = log()
  emit({ kind: 'listening', address: 'a' })
  close()
  expect(readdirSync(directory)).toEqual([])
  const blocked = log()
  writeFileSync(join(blocked.directory, 'server'), 'a file where the directory should be')
  for (let step = 1; step < 5; step++) {
    blocked.emit(update(step))
    blocked.pass(3000)
  }
  blocked.close()
  expect([failures.length, blocked.failures.length]).toEqual([0, 1])
})

requires('python-tensorboard').describe('TensorBoard', () => {
  test('reads scalars and the graph', () => {
    const { emit, graph, pass, close, readBack, directory } = log()
    // One node, named `n`, op `NoOp`.
    graph(Uint8Array.of(10, 9, 10, 1, 110, 18, 4, 78, 111, 79, 112))
    for (let step = 1; step <= 5; step++) {
      emit(update(step))
      pass(500)
    }
    emit({ kind: 'evaluation', step: 5, examples: 9, scores: { auc: 0.75, logLoss: 0.5 } })
    emit(update(6, 1e300))
    close()
    const file = readdirSync(join(directory, 'server'))
    expect(file).toEqual(['events.out.tfevents.1700000000000.cloister'])
    const { scalars, graph: nodes, wallTime } = readBack()
    expect(nodes).toEqual(['n'])
    expect(wallTime).toBe(1_700_000_000)
    expect(scalars).toEqual({
      // The last lies beyond float32.
      'training/loss': [...[1, 2, 3, 4, 5].map((step) => [step, step / 8]), [6, 'inf']],
      'training/learning_rate': [1, 2, 3, 4, 5, 6].map((step) => [step, 0.25]),
      'training/staleness': [1, 2, 3, 4, 5, 6].map((step) => [step, 3]),
      // Two updates of 32 examples a second.
      'speed/steps_per_second': [
        [3, 2],
        [5, 2],
      ],
      'speed/examples_per_second': [
        [3, 64],
        [5, 64],
      ],
      'held_out/auc': [[5, 0.75]],
      'held_out/logLoss': [[5, 0.5]],
    })
  })

  test('a resumed server: what it had done of the steps that it does anew is forgotten', () => {
    const { emit, close, readBack } = log()
    for (let step = 1; step <= 5; step++) emit(update(step, 1))
    emit({ kind: 'resumed', step: 3 })
    for (let step = 3; step <= 4; step++) emit(update(step, 2))
    close()
    expect(readBack().scalars['training/loss']).toEqual([
      [1, 1],
      [2, 1],
      [3, 2],
      [4, 2],
    ])
  })

  test('a byte that was changed is noticed', () => {
    const { emit, close, readBack, directory } = log()
    for (let step = 1; step <= 3; step++) emit(update(step))
    close()
    const [name] = readdirSync(join(directory, 'server'))
    const path = join(directory, 'server', name as string)
    const bytes = readFileSync(path)
    const last = bytes.length - 6
    bytes.writeUInt8(bytes.readUInt8(last) ^ 1, last)
    writeFileSync(path, bytes)
    expect(readBack().scalars['training/loss']).toHaveLength(2)
  })
})
