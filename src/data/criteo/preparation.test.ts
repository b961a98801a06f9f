import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readValues, valueChunks } from './agreement-format.ts'
import { CriteoDataset } from './criteo-dataset.ts'
import { categoryColumns, missingInteger, rowWords } from './criteo-line.ts'
import { type CategoryOptions, CriteoEncoder, columnRows, tableRows } from './encoding.ts'
import { CriteoPreparationServer, CriteoPreparationWorker } from './preparation.ts'
import type { CriteoRows } from './row-cache.ts'

/** Rows whose every category and integer is the number given; undefined is missing. */
function rowsOf(values: readonly (number | undefined)[]): CriteoRows {
  return {
    rows: values.length,
    malformed: { count: 0, first: [] },
    sources: [],
    labels: Uint8Array.from(values, (_, row) => row % 2),
    copyRow(row, out, at) {
      const value = values[row]
      out[at] = (row % 2) | (value === undefined ? -2 : 0)
      out.fill(value ?? missingInteger, at + 1, at + 14)
      out.fill(value ?? 0, at + 14, at + rowWords)
    },
    close: async () => {},
  }
}

const every = (rows: CriteoRows): Uint32Array => Uint32Array.from({ length: rows.rows }, (_, row) => row)
const vocabulary = (options: Partial<Extract<CategoryOptions, { scheme: 'vocabulary' }>> = {}): CategoryOptions => ({
  scheme: 'vocabulary',
  minimumCount: 1,
  minimumOwners: 1,
  maximumValues: 100,
  ...options,
})

/** All workers contribute, in this order; gives the ids of column 0 that the first worker's rows have. */
async function agree(
  owners: readonly (readonly (number | undefined)[])[],
  categories: CategoryOptions,
  order = owners.map((_, i) => i),
) {
  const options = { dense: 'standardised', categories } as const
  const server = new CriteoPreparationServer(options)
  for (const owner of order) {
    const rows = rowsOf(owners[owner]!)
    const receiver = server.begin(owner)
    const worker = new CriteoPreparationWorker(rows, every(rows), new CriteoEncoder(options))
    for await (const chunk of worker.contribution()) receiver.accept(chunk)
    receiver.end()
  }
  const chunks = [...server.result()]
  const encoded = async (values: readonly (number | undefined)[]) => {
    const rows = rowsOf(values)
    const encoder = new CriteoEncoder(options)
    const receiver = new CriteoPreparationWorker(rows, every(rows), encoder).begin()
    for (const chunk of chunks) receiver.accept(chunk)
    receiver.end()
    const batch = await new CriteoDataset(rows, every(rows), encoder).read(every(rows))
    return { ids: batch.ids!.data, dense: batch.dense!.data, labels: [...batch.labels!.data] }
  }
  return { chunks, encoded, server }
}

const firstColumn = ({ ids }: { ids: ArrayLike<number> }): number[] =>
  Array.from(ids).filter((_, index) => index % categoryColumns === 0)

test('values in enough rows of enough owners get rows; others, and missing ones, have one each', async () => {
  const owners = [
    [7, 7, 7, 3, undefined],
    [3, 5, 5, 5, 5],
  ]
  const asked = [3, 5, 7, 9, undefined]
  const ids = async (categories: CategoryOptions) => firstColumn(await (await agree(owners, categories)).encoded(asked))
  expect(await ids(vocabulary())).toEqual([2, 3, 4, 0, 1])
  expect(await ids(vocabulary({ minimumCount: 3 }))).toEqual([0, 2, 3, 0, 1])
  expect(await ids(vocabulary({ minimumOwners: 2 }))).toEqual([2, 0, 0, 0, 1])
  expect(await ids(vocabulary({ maximumValues: 1 }))).toEqual([0, 2, 0, 0, 1])
  expect(await ids(vocabulary({ maximumValues: 2 }))).toEqual([0, 2, 3, 0, 1])
})

test('nothing of a value below the thresholds is sent to workers', async () => {
  const secret = 0x5ec4e7
  const { chunks } = await agree(
    [
      [1, 1, secret],
      [1, 1],
    ],
    vocabulary({ minimumOwners: 2 }),
  )
  const without = await agree(
    [
      [1, 1, secret + 1],
      [1, 1],
    ],
    vocabulary({ minimumOwners: 2 }),
  )
  // Statistics, the first chunk, are of all rows.
  expect(chunks.slice(1)).toEqual(without.chunks.slice(1))
})

test('columns own ranges of the table; standardised integers have mean 0 and deviation 1', async () => {
  const { encoded } = await agree(
    [
      [2, 4, 4],
      [4, 5, 5, 7, 9, undefined],
    ],
    vocabulary(),
  )
  const { ids, dense, labels } = await encoded([2, 9, undefined])
  // Mean 5, deviation 2: the textbook example.
  expect([dense[0], dense[13], dense[26]]).toEqual([-1.5, 2, 0])
  expect(labels).toEqual([0, 1, 0])
  const rows = columnRows(vocabulary())
  expect([...ids].slice(0, categoryColumns)).toEqual(
    Array.from({ length: categoryColumns }, (_, column) => column * rows + 2),
  )
  expect(Math.max(...ids)).toBeLessThan(tableRows(vocabulary()))
})

test('the order of workers, a second contribution and one broken off change nothing', async () => {
  const owners = [
    [1, 2, 3],
    [2, 3, 4],
    [0.5e9, 3],
  ]
  const { chunks, server } = await agree(owners, vocabulary({ minimumCount: 2 }))
  const other = await agree(owners, vocabulary({ minimumCount: 2 }), [2, 0, 0, 1])
  expect(other.chunks).toEqual(chunks)
  server.begin(7).abort()
  expect([...server.result()]).toEqual(chunks)
  const restored = new CriteoPreparationServer({ dense: 'standardised', categories: vocabulary() })
  restored.restore(chunks)
  expect([...restored.result()]).toEqual(chunks)
})

test('many values travel in several chunks below 1 MiB', () => {
  const values = Uint32Array.from({ length: 250_000 }, (_, index) => index * 17_179)
  const chunks = [...valueChunks(25, values, (value) => (value % 1000) + 1)]
  expect(chunks.length).toBe(3)
  expect(Math.max(...chunks.map((chunk) => chunk.length))).toBeLessThan(2 ** 20)
  const seen = new Uint32Array(values.length)
  let wrongCounts = 0
  let index = 0
  let last = -1
  for (const chunk of chunks) {
    last = readValues(chunk, last, true, 'contribution-malformed', (value, count) => {
      seen[index++] = value
      if (count !== (value % 1000) + 1) wrongCounts++
    })
  }
  expect(Buffer.from(seen.buffer).equals(Buffer.from(values.buffer))).toBe(true)
  expect(wrongCounts).toBe(0)
})

test('32-bit values travel whole', async () => {
  const values = Array.from({ length: 500 }, (_, index) => (index * 8_589_934) | 0)
  const { encoded } = await agree([values], vocabulary({ maximumValues: 500 }))
  const ids = firstColumn(await encoded(values))
  expect(new Set(ids).size).toBe(500)
  expect(Math.min(...ids)).toBe(2)
})

test('hashing needs no agreement under log, and stays within the buckets', async () => {
  const categories = { scheme: 'hash', buckets: 10 } as const
  const rows = rowsOf([undefined, ...Array.from({ length: 500 }, (_, index) => index)])
  const batch = await new CriteoDataset(rows, every(rows), new CriteoEncoder({ dense: 'log', categories })).read(
    every(rows),
  )
  const ids = firstColumn({ ids: batch.ids!.data })
  expect(ids[0]).toBe(1)
  expect([...new Set(ids.slice(1))].sort((a, b) => a - b)).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
  expect(batch.dense!.data[0]).toBe(0)
  expect(batch.dense!.data[3 * 13]).toBe(Math.fround(Math.log(3)))
})

test('too many distinct values for the server', () => {
  const server = new CriteoPreparationServer({ dense: 'log', categories: vocabulary() }, { maximumDistinctValues: 2 })
  const three = Uint8Array.of(1, 0, 0, 1, 0, 1, 0, 1)
  expect(() => server.begin(0).accept(three)).toThrow(expect.objectContaining({ code: 'vocabulary-full' }))
})

test.each([
  ['nothing', []],
  ['an unknown kind', [9]],
  ['a column of 26', [1, 26, 0, 1]],
  ['no column', [1]],
  ['a value without its count', [1, 0, 5]],
  ['a count of 0', [1, 0, 5, 0]],
  ['an endless number', [1, 0, 255, 255, 255, 255, 255, 255, 1]],
  ['a number in more bytes than it takes', [1, 0, 0x80, 0, 1]],
  ['a value above 32 bits', [1, 0, 255, 255, 255, 255, 15, 1, 0, 1]],
  ['sums that are too short', [0, 1, 2]],
])('a contribution is refused: %s', (_, bytes) => {
  const server = new CriteoPreparationServer({ dense: 'log', categories: vocabulary() })
  expect(() => server.begin(0).accept(Uint8Array.from(bytes))).toThrow(
    expect.objectContaining({ code: 'contribution-malformed' }),
  )
})

test('a contribution without sums, and any bytes as what was agreed on', () => {
  const server = new CriteoPreparationServer({ dense: 'log', categories: vocabulary() })
  expect(() => server.begin(0).end()).toThrow(expect.objectContaining({ code: 'contribution-malformed' }))
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 30 }), { maxLength: 3 }), (chunks) => {
      const restore = () => server.restore(chunks)
      expect(restore).toThrow(expect.objectContaining({ code: 'preparation-malformed' }))
    }),
  )
})
