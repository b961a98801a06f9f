import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { rowWords } from './criteo-line.ts'
import { type CriteoSource, criteoFileNames, criteoSources } from './criteo-source.ts'
import { openCriteo, splitHeldOut } from './open-criteo.ts'
import { readCriteoRows } from './read-rows.ts'
import type { CriteoRows } from './row-cache.ts'
import { writeSyntheticCriteo } from './synthetic-criteo.ts'

const root = mkdtempSync(join(tmpdir(), 'criteo-'))
const directory = join(root, 'made')
const text = (): string => readFileSync(join(directory, 'train.txt'), 'utf8')
beforeAll(async () => {
  await writeSyntheticCriteo({ directory, rows: 9000, seed: 3, files: 1, gzip: false })
})
afterAll(() => rmSync(root, { recursive: true }))

/** Comparing typed arrays element by element takes seconds. */
const digestOf = (rows: CriteoRows): string => createHash('sha256').update(wordsOf(rows)).digest('hex')

function wordsOf(rows: CriteoRows): Int32Array {
  const words = new Int32Array(rows.rows * rowWords)
  for (let row = 0; row < rows.rows; row++) rows.copyRow(row, words, row * rowWords)
  return words
}

const source = (contents: string | Uint8Array, name = 'given'): CriteoSource => ({
  name,
  identity: 'here',
  async *open() {
    yield Buffer.from(contents)
  },
})
const read = (contents: string | Uint8Array, malformedLines = 0) =>
  readCriteoRows({ sources: [source(contents)], malformedLines }, () => {})

test('the cache has the rows of the text, in memory or on disk, plain or gzip, and is made once', async () => {
  const cacheDirectory = join(root, 'cache')
  const sources = await criteoSources(directory)
  const rows = await openCriteo({ sources, cacheDirectory, malformedLines: 0 })
  const words = wordsOf(rows)
  expect(rows.rows).toBe(9000)
  const lines = text().trimEnd().split('\n')
  expect(Array.from(rows.labels, String)).toEqual(lines.map((line) => line[0]))
  expect(Array.from({ length: 9000 }, (_, row) => words[row * rowWords + 5])).toEqual(
    lines.map((line) => (line.split('\t')[5] === '' ? -(2 ** 31) : Number(line.split('\t')[5]))),
  )
  const [file] = readdirSync(cacheDirectory)
  const made = statSync(join(cacheDirectory, file!)).mtimeMs
  const onDisk = await openCriteo({ sources, cacheDirectory, malformedLines: 0, maximumMemoryBytes: 0 })
  expect(digestOf(onDisk)).toBe(digestOf(rows))
  await onDisk.close()
  expect(statSync(join(cacheDirectory, file!)).mtimeMs).toBe(made)
  const zipped = join(root, 'zipped.tsv')
  writeFileSync(zipped, gzipSync(text()))
  const unzipped = await openCriteo({ sources: await criteoSources(zipped), cacheDirectory, malformedLines: 0 })
  expect(digestOf(unzipped)).toBe(digestOf(rows))
})

test('a damaged cache is made anew; other data have another', async () => {
  const cacheDirectory = join(root, 'damaged')
  const path = join(root, 'changing.tsv')
  writeFileSync(path, text())
  const open = async () => openCriteo({ sources: await criteoSources(path), cacheDirectory, malformedLines: 0 })
  const digest = digestOf(await open())
  const cache = join(cacheDirectory, readdirSync(cacheDirectory)[0]!)
  const whole = readFileSync(cache)
  for (const at of [0, 777_777, whole.length - 300, whole.length - 45, whole.length - 14, whole.length - 1]) {
    const bytes = Buffer.from(whole)
    bytes[at]! ^= 1
    writeFileSync(cache, bytes)
    expect(digestOf(await open())).toBe(digest)
    expect(readFileSync(cache).equals(whole)).toBe(true)
  }
  for (const length of [0, 20, whole.length - 160]) {
    writeFileSync(cache, whole.subarray(0, length))
    expect(digestOf(await open())).toBe(digest)
  }
  writeFileSync(path, text().split('\n').slice(0, 500).join('\n'))
  utimesSync(path, 1, 1)
  expect((await open()).rows).toBe(500)
})

test('malformed lines are counted and located, and refused above the bound', async () => {
  const lines = text().trimEnd().split('\n').slice(0, 20)
  lines[3] = lines[3]!.replace('\t', ' ')
  lines[11] = 'x'.repeat(10_000)
  const given = lines.join('\n')
  await expect(read(given)).rejects.toMatchObject({
    code: 'data-malformed',
    message: 'given:4: column 1: expected 0 or 1',
  })
  await expect(read(given, 1)).rejects.toMatchObject({
    code: 'data-malformed',
    message: expect.stringMatching(/^expected at most 1 .*given:4: .*given:12: expected at most 4096 bytes/),
  })
  expect(await read(given, 2)).toMatchObject({ rows: 18, malformed: { count: 2 } })
  // A cache that a more generous job made is refused by a strict one.
  const common = { sources: [source(given)], cacheDirectory: join(root, 'malformed') }
  expect((await openCriteo({ ...common, malformedLines: 2 })).rows).toBe(18)
  await expect(openCriteo({ ...common, malformedLines: 1 })).rejects.toMatchObject({ code: 'data-malformed' })
})

test('refused: nothing, junk, a gzip file cut off, a missing path', async () => {
  await expect(read('')).rejects.toMatchObject({ code: 'data-empty' })
  await expect(read('\n', 5)).rejects.toMatchObject({ code: 'data-empty' })
  await expect(read(Uint8Array.from({ length: 100_000 }, (_, index) => (index * 31) % 256))).rejects.toMatchObject({
    code: 'data-malformed',
  })
  await expect(read(gzipSync(text()).subarray(0, 100_000))).rejects.toMatchObject({ code: 'data-unreadable' })
  await expect(criteoSources(join(root, 'nowhere'))).rejects.toMatchObject({ code: 'data-missing' })
  expect(readdirSync(root).filter((name) => name.includes('unfinished'))).toEqual([])
})

test('a line of a gigabyte takes no memory', async () => {
  const part = new Uint8Array(2 ** 20).fill(49)
  const endless: CriteoSource = {
    name: 'endless',
    identity: '',
    async *open() {
      for (let sent = 0; sent < 1024; sent++) yield part
      yield Buffer.from(`\n${text().split('\n', 1)[0]}`)
    },
  }
  const before = process.memoryUsage()
  const { rows, malformed } = await readCriteoRows({ sources: [endless], malformedLines: 1 }, () => {})
  expect({ rows, malformed: malformed.count }).toEqual({ rows: 1, malformed: 1 })
  expect(process.memoryUsage().arrayBuffers - before.arrayBuffers).toBeLessThan(64 * 2 ** 20)
})

test('files of a directory in the order of their numbers', () => {
  expect(
    criteoFileNames(['day_10', 'day_9.gz', 'test.txt', 'readme.txt', 'train.txt', 'generator.json', 'day_1']),
  ).toEqual(['day_1', 'day_9.gz', 'day_10', 'train.txt'])
})

test('every row is trained on or held out, never both', () => {
  const scheme = fc.constantFrom('first' as const, 'last' as const, 'random' as const)
  fc.assert(
    fc.property(
      scheme,
      fc.integer({ min: 2, max: 500 }),
      fc.double({ min: 0.001, max: 0.999, noNaN: true }),
      (kind, rows, fraction) => {
        const { training, heldOut } = splitHeldOut(rows, { scheme: kind, fraction, seed: 5 })
        expect([...training, ...heldOut].sort((a, b) => a - b)).toEqual(Array.from({ length: rows }, (_, row) => row))
        expect(Math.min(training.length, heldOut.length)).toBeGreaterThan(0)
        expect([...training]).toEqual([...training].sort((a, b) => a - b))
        if (kind === 'first') expect(heldOut[0]).toBe(0)
        if (kind === 'last') expect(heldOut.at(-1)).toBe(rows - 1)
      },
    ),
  )
})
