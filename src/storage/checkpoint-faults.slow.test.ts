/** Processes that die or find no room while they write checkpoints: the built program, under the limits of Gramine where those are at hand. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { gramineLimits, requires } from '../../test/requirements.ts'
import { changedRows, contentOf, storeOptions } from '../../test/support/checkpoint-content.mjs'
import { CheckpointStore } from './checkpoint-store.ts'
import type { RowsBlock } from './rows-block.ts'

const writer = resolve(import.meta.dirname, '../../test/support/checkpoint-writer.mjs')
const limits = requires('gramine-limits').available ? ['--require', gramineLimits] : []

let directory = ''
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cloister-faults-'))
})
afterEach(() => rm(directory, { recursive: true }))

type Rows = ReadonlyMap<string, number>

/** Table and id → the number that fills its row; later blocks win. */
async function collect(rows: Iterable<RowsBlock> | AsyncIterable<RowsBlock>, before: Rows = new Map()): Promise<Rows> {
  const collected = new Map(before)
  for await (const { table, ids, values } of rows) {
    const numbers = values.length / ids.length
    for (const [row, id] of ids.entries()) {
      const all = values.subarray(row * numbers, (row + 1) * numbers)
      if (all.some((value) => value !== all[0])) throw new Error(`row ${id} of ${table} is mixed`)
      collected.set(`${table}/${id}`, all[0]!)
    }
  }
  return collected
}

/** What the rows must be at the latest steps: as if the changes of all steps until then had been applied. */
const expected: Rows[] = []
beforeEach(() => {
  expected.length = 0
})
async function rowsAt(step: number): Promise<Rows> {
  while (expected.length <= step) {
    expected.push(await collect(changedRows(expected.length), expected.at(-1)))
    delete expected[expected.length - 10]
  }
  return expected[step]!
}

/** Opens the store, compares every checkpoint in it with what its step demands, and returns the steps. */
async function verifiedSteps(): Promise<readonly number[]> {
  const refused: string[] = []
  const store = await CheckpointStore.open({
    ...storeOptions(directory),
    onRefused: ({ path, error }) => refused.push(`${path}: ${error.message}`),
  })
  expect(refused).toEqual([])
  for (const step of store.steps) {
    const { rows, ...content } = await store.read(step)
    expect(content).toEqual(contentOf(step))
    const [read, demanded] = [await collect(rows), await rowsAt(step)]
    expect(read.size).toBe(demanded.size)
    expect([...demanded].filter(([name, value]) => read.get(name) !== value)).toEqual([])
  }
  return store.steps
}

/** Kills a writer with −9 some time after its first checkpoint, and returns the steps that it said are on disk. */
async function killedAfter(delayMs: number): Promise<number[]> {
  const child = spawn(process.execPath, [...limits, writer, directory, '100000'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const steps: number[] = []
  const closed = new Promise<void>((done) => child.on('close', () => done()))
  for await (const line of createInterface(child.stdout)) {
    const [what, value] = line.split(' ')
    if (what !== 'written') throw new Error(line)
    if (steps.length === 0) setTimeout(() => child.kill('SIGKILL'), delayMs)
    steps.push(Number(value))
  }
  await closed
  return steps
}

test('a server that is killed at random moments, forty times, loses no checkpoint that it spoke of', async () => {
  let newest = -1
  for (let round = 0; round < 40; round += 1) {
    const written = await killedAfter(Math.random() * 60)
    expect(written[0]).toBeLessThanOrEqual(newest + 1)
    const steps = await verifiedSteps()
    newest = steps.at(-1)!
    expect(newest).toBeGreaterThanOrEqual(written.at(-1)!)
    // The last that it spoke of, as many as are kept.
    const kept = written.slice(-(3 - (newest - written.at(-1)!)))
    expect(steps).toEqual(expect.arrayContaining(kept))
    expect(steps.length).toBeLessThanOrEqual(4)
    const names = await readdir(directory)
    expect(names.filter((name) => name.endsWith('.partial'))).toEqual([])
  }
  expect(newest).toBeGreaterThan(80)
})

test('where a file may grow no further, the checkpoint fails and the ones before stay', async () => {
  const run = (fileBlocks: string): string[] =>
    spawnSync(
      'sh',
      ['-c', `ulimit -f ${fileBlocks}; exec "$@"`, 'sh', process.execPath, ...limits, writer, directory, '9'],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    ).stdout.split('\n')
  // A small checkpoint takes less than 400 KB, that of every seventh step more than a megabyte.
  expect(run('1000')).toEqual(['failed storage-full', ''])
  expect(await readdir(directory)).toEqual([])
  expect(run('unlimited')).toContain('written 8')
  const limited = run('1000')
  expect(limited).toEqual([
    'written 9',
    'written 10',
    'written 11',
    'written 12',
    'written 13',
    'failed storage-full',
    '',
  ])
  expect(await verifiedSteps()).toEqual([11, 12, 13])
  expect(run('unlimited')).toContain('written 14')
  expect((await verifiedSteps()).at(-1)).toBe(22)
})
