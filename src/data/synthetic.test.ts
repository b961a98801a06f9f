import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { cifar10TestFile, cifar10TrainingFiles, openCifar10, recordBytes } from './cifar10.ts'
import { cifar10Digests } from './fetch.ts'
import { syntheticClasses, writeSynthetic } from './synthetic.ts'

const root = mkdtempSync(join(tmpdir(), 'synthetic-'))
afterAll(() => rmSync(root, { recursive: true }))

const digestOf = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')
const names = [...cifar10TrainingFiles, cifar10TestFile]

test('makes the files of CIFAR-10 as its reader wants them, the same for the same seed', async () => {
  const directories = [1, 1, 2].map((seed, index) => ({ seed, directory: join(root, `same-${index}/`) }))
  const events: CloisterEvent[] = []
  for (const { seed, directory } of directories) {
    await writeSynthetic({ directory, seed, recordsPerFile: 40, events: (event) => events.push(event) })
    expect(readdirSync(directory).sort()).toEqual(['batches.meta.txt', ...names].sort())
  }
  expect(events.at(-1)).toEqual({ kind: 'progress', activity: 'prepare-data', done: 240, total: 240 })
  const [first, again, other] = directories.map(({ directory }) => names.map((name) => digestOf(join(directory, name))))
  expect(again).toEqual(first)
  // Neither files nor seeds repeat one another.
  expect(new Set([...first!, ...other!]).size).toBe(12)

  const dataset = await openCifar10(names.map((name) => join(directories[0]!.directory, name)))
  const counts = new Array<number>(10).fill(0)
  for (const label of await dataset.labels()) counts[label]!++
  expect(counts).toEqual(new Array(10).fill(24))
  await dataset.close()
})

test('can never be taken for CIFAR-10', () => {
  const list = readFileSync(join(root, 'same-0', 'batches.meta.txt'), 'utf8')
    .trim()
    .split('\n')
  expect(list).toEqual(syntheticClasses)
  for (const name of list) expect(name).toMatch(/^synthetic-/)
  for (const name of names) {
    const digest = createHash('sha256')
      .update(readFileSync(join(root, 'same-0', name)))
      .digest('hex')
    expect(Object.values(cifar10Digests)).not.toContain(digest)
  }
})

test('images differ by class where the shape is, and are not their own mirror’s class', () => {
  // Stripes across change along x, stripes along change along y: mean difference of neighbours, over all images of a class.
  const bytes = readFileSync(join(root, 'same-0', 'data_batch_1.bin'))
  const roughness = new Map<number, { x: number; y: number }>()
  for (let at = 0; at < bytes.length; at += recordBytes) {
    const sums = roughness.get(bytes[at]!) ?? { x: 0, y: 0 }
    for (let y = 0; y < 31; y++) {
      for (let x = 0; x < 31; x++) {
        const here = bytes[at + 1 + 32 * y + x]!
        sums.x += Math.abs(here - bytes[at + 1 + 32 * y + x + 1]!)
        sums.y += Math.abs(here - bytes[at + 1 + 32 * (y + 1) + x]!)
      }
    }
    roughness.set(bytes[at]!, sums)
  }
  for (const [label, { x, y }] of roughness) {
    if (label % 2 === 0) expect(x).toBeGreaterThan(y)
    else expect(y).toBeGreaterThan(x)
  }
})

test('refuses to write over something, and impossible sizes; leaves nothing behind', async () => {
  const directory = join(root, 'same-0')
  const options = { seed: 1, recordsPerFile: 1 }
  await expect(writeSynthetic({ directory, ...options })).rejects.toMatchObject({ code: 'data-exists' })
  const file = join(root, 'file')
  writeFileSync(file, '')
  await expect(writeSynthetic({ directory: file, ...options })).rejects.toMatchObject({ code: 'data-exists' })
  for (const recordsPerFile of [0, 10_001, 1.5]) {
    await expect(writeSynthetic({ directory: join(root, 'x'), seed: 1, recordsPerFile })).rejects.toThrow(RangeError)
  }
  const aborted = writeSynthetic({
    directory: join(root, 'y'),
    ...options,
    signal: AbortSignal.abort(new Error('stop')),
  })
  await expect(aborted).rejects.toThrow('stop')
  expect(readdirSync(root).sort()).toEqual(['file', 'same-0', 'same-1', 'same-2'])
})

requires('cifar10').describe('pinned digests', () => {
  test('are those of the files at hand', () => {
    const lines = readFileSync(join(sharedDirectory, 'data/cifar10/SHA256SUMS'), 'utf8').trim().split('\n')
    const sums = Object.fromEntries(lines.map((line) => line.split(/\s+/).reverse()))
    expect(cifar10Digests).toEqual(sums)
  })
})
