import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { cifar10Classes, cifar10TestFile, cifar10TrainingFiles, openCifar10, recordBytes } from './cifar10.ts'
import type { Dataset } from './dataset.ts'

/** Channel c of pixel (y, x) of record r: a value that names its place, so that a swap of axes or records shows. */
const pixel = (record: number, y: number, x: number, channel: number) =>
  (record * 31 + y * 7 + x * 3 + channel * 101) % 256

function records(count: number, first = 0): Uint8Array {
  const bytes = new Uint8Array(count * recordBytes)
  for (let index = 0; index < count; index++) {
    bytes[index * recordBytes] = (first + index) % 10
    for (let channel = 0; channel < 3; channel++) {
      for (let place = 0; place < 1024; place++) {
        bytes[index * recordBytes + 1 + channel * 1024 + place] = pixel(
          first + index,
          Math.floor(place / 32),
          place % 32,
          channel,
        )
      }
    }
  }
  return bytes
}

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cifar10-'))
})
afterAll(() => rm(directory, { recursive: true }))

async function file(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(directory, name)
  await writeFile(path, bytes)
  return path
}

async function withDataset(paths: string[], use: (dataset: Dataset) => Promise<void>): Promise<void> {
  const dataset = await openCifar10(paths)
  try {
    await use(dataset)
  } finally {
    await dataset.close()
  }
}

describe('reading', () => {
  test('any records of several files, in the order asked for, channels last', async () => {
    const paths = [await file('a', records(5)), await file('none', records(0)), await file('b', records(300, 5))]
    await withDataset(paths, async (dataset) => {
      expect(dataset.examples).toBe(305)
      expect(await dataset.labels()).toEqual(Uint8Array.from({ length: 305 }, (_, index) => index % 10))
      await fc.assert(
        fc.asyncProperty(fc.array(fc.nat(304), { maxLength: 12 }), async (indices) => {
          const { images, labels } = await dataset.read(indices)
          expect(images).toMatchObject({ shape: [indices.length, 32, 32, 3], dtype: 'uint8' })
          expect(labels).toMatchObject({ shape: [indices.length], dtype: 'int32' })
          expect([...labels!.data]).toEqual(indices.map((index) => index % 10))
          indices.forEach((index, row) => {
            for (const [y, x] of [
              [0, 0],
              [0, 31],
              [31, 0],
              [17, 5],
            ] as const) {
              const at = ((row * 32 + y) * 32 + x) * 3
              expect([...images!.data.subarray(at, at + 3)]).toEqual([0, 1, 2].map((c) => pixel(index, y, x, c)))
            }
          })
        }),
        { numRuns: 20 },
      )
    })
  })

  test('an index out of range is a bug of the caller', async () => {
    await withDataset([await file('a', records(5))], async (dataset) => {
      for (const index of [5, -1, Number.NaN]) await expect(dataset.read([index])).rejects.toThrow(RangeError)
    })
  })
})

describe('refuses', () => {
  test('a truncated file, naming file, record and offset', async () => {
    const path = await file('short', records(3).subarray(0, 2 * recordBytes + 100))
    await expect(openCifar10([path])).rejects.toMatchObject({
      code: 'data-truncated',
      message: expect.stringMatching(/short: .* 6246 bytes: record 2 at offset 6146 has only 100$/),
    })
  })

  test.each([1, 2 * recordBytes, 17])('an oversized file (%i bytes too many)', async (extra) => {
    // Sparse: the size is what is judged.
    const path = await file('long', records(1))
    await truncate(path, 10_000 * recordBytes + extra)
    await expect(openCifar10([path])).rejects.toMatchObject({
      code: 'data-oversized',
      message: expect.stringContaining(`${extra} extra from offset 30730000 on`),
    })
    await truncate(path, 10_000 * recordBytes)
    await withDataset([path], async (dataset) => expect(dataset.examples).toBe(10_000))
  })

  test('a label above 9, from labels() and from read()', async () => {
    const bytes = records(4)
    bytes[2 * recordBytes] = 10
    const paths = [await file('good', records(3)), await file('bad', bytes)]
    await withDataset(paths, async (dataset) => {
      const refusal = {
        code: 'label-out-of-range',
        message: 'bad: expected a label from 0 to 9, got 10 in record 2 at offset 6146',
      }
      await expect(dataset.labels()).rejects.toMatchObject(refusal)
      await expect(dataset.read([0, 5])).rejects.toMatchObject(refusal)
      await expect(dataset.read([0, 4, 6])).resolves.toBeDefined()
    })
  })

  test('no records at all', async () => {
    await expect(openCifar10([await file('empty', records(0))])).rejects.toMatchObject({ code: 'shard-empty' })
    await expect(openCifar10([])).rejects.toMatchObject({ code: 'shard-empty' })
  })

  test('a missing file and a directory', async () => {
    const missing = openCifar10([join(directory, 'nowhere.bin')])
    await expect(missing).rejects.toMatchObject({ code: 'data-missing', hint: expect.stringContaining('data fetch') })
    await expect(openCifar10([directory])).rejects.toMatchObject({ code: 'data-unreadable' })
  })

  test('a file that shrinks while it is open', async () => {
    const path = await file('shrinking', records(4))
    await withDataset([path], async (dataset) => {
      await truncate(path, 2 * recordBytes + 5)
      await expect(dataset.read([2])).rejects.toMatchObject({ code: 'data-changed' })
      await expect(dataset.labels()).rejects.toMatchObject({ code: 'data-changed' })
      await expect(dataset.read([1])).resolves.toBeDefined()
    })
  })
})

requires('cifar10').describe('the real CIFAR-10', () => {
  const path = (name: string) => join(sharedDirectory, 'data/cifar10', name)

  test('has 5,000 training and 1,000 test images of each class, named as its own list says', async () => {
    const names = await readFile(path('batches.meta.txt'), 'utf8')
    expect(names.trim().split('\n')).toEqual([...cifar10Classes])
    for (const [files, expected] of [
      [cifar10TrainingFiles, 5000],
      [[cifar10TestFile], 1000],
    ] as const) {
      await withDataset(files.map(path), async (dataset) => {
        const counts = new Array<number>(10).fill(0)
        for (const label of await dataset.labels()) counts[label]!++
        expect(counts).toEqual(new Array(10).fill(expected))
      })
    }
  })
})
