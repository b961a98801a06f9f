import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { CloisterEvent } from '../observability/events.ts'
import { cifar10Classes, cifar10TestFile, cifar10TrainingFiles } from './cifar10.ts'
import { identifyImages, locateImages, openHeldOut, openTraining } from './locate.ts'
import { syntheticClasses, writeSynthetic } from './synthetic.ts'

const root = mkdtempSync(join(tmpdir(), 'locate-'))
afterAll(() => rmSync(root, { recursive: true }))

const nowhere = 'http://127.0.0.1:1/cifar-10-binary.tar.gz'
/** A small set that stands for the official one: its digests are given as the pinned ones. */
const official = join(root, 'official')
let digests: Record<string, string>
let cacheDirectory: string

beforeAll(async () => {
  await writeSynthetic({ directory: official, seed: 77, recordsPerFile: 20 })
  writeFileSync(join(official, 'batches.meta.txt'), cifar10Classes.join('\n'))
  digests = Object.fromEntries(
    [...cifar10TrainingFiles, cifar10TestFile].map((name) => [
      name,
      createHash('sha256')
        .update(readFileSync(join(official, name)))
        .digest('hex'),
    ]),
  )
})

beforeEach(() => {
  cacheDirectory = mkdtempSync(join(root, 'cache-'))
})

const locate = (more: Partial<Parameters<typeof locateImages>[0]> = {}) =>
  locateImages({ cacheDirectory, address: nowhere, digests, syntheticRecordsPerFile: 10, ...more })

describe('where images come from', () => {
  test('the directory that was named, before any other', async () => {
    mkdirSync(join(cacheDirectory, 'data'))
    cpSync(official, join(cacheDirectory, 'data/cifar10'), { recursive: true })
    const own = join(root, 'own')
    cpSync(official, own, { recursive: true })
    expect(await locate({ directory: own })).toMatchObject({ directory: own, dataSource: 'cifar-10' })
  })

  test('the cache, without a network', async () => {
    mkdirSync(join(cacheDirectory, 'data'))
    cpSync(official, join(cacheDirectory, 'data/cifar10'), { recursive: true })
    expect(await locate()).toMatchObject({ directory: join(cacheDirectory, 'data/cifar10'), dataSource: 'cifar-10' })
  })

  test('synthetic ones without a network, said aloud, and made once', async () => {
    const events: CloisterEvent[] = []
    const images = await locate({ events: (event) => events.push(event) })
    expect(images).toMatchObject({ dataSource: 'synthetic', name: 'synthetic', classes: syntheticClasses })
    expect(events[0]).toMatchObject({ kind: 'warning', error: { code: 'data-offline' } })
    expect(existsSync(join(cacheDirectory, 'data/cifar10'))).toBe(false)
    expect(await locate()).toEqual(images)

    const training = await openTraining(images)
    const heldOut = await openHeldOut(images)
    expect([training.examples, heldOut.examples, training.name]).toEqual([50, 10, 'synthetic'])
    await Promise.all([training.close(), heldOut.close()])
  })

  test('never synthetic ones in place of a directory that was named', async () => {
    const empty = join(root, 'empty')
    mkdirSync(empty)
    for (const directory of [empty, join(root, 'nowhere')]) {
      await expect(locate({ directory })).rejects.toMatchObject({ code: 'data-missing' })
    }
  })
})

describe('what a directory holds', () => {
  const copy = (name: string): string => {
    const directory = join(root, name)
    cpSync(official, directory, { recursive: true })
    return directory
  }

  test('a part of the official files is CIFAR-10', async () => {
    const directory = copy('part')
    for (const name of cifar10TrainingFiles.slice(1)) rmSync(join(directory, name))
    expect(await identifyImages(directory, digests)).toMatchObject({
      dataSource: 'cifar-10',
      training: [join(directory, 'data_batch_1.bin')],
      heldOut: [join(directory, 'test_batch.bin')],
    })
    rmSync(join(directory, 'test_batch.bin'))
    await expect(identifyImages(directory, digests)).rejects.toMatchObject({ code: 'data-missing' })
  })

  test('a changed copy is not', async () => {
    const directory = copy('changed')
    const path = join(directory, 'data_batch_3.bin')
    const bytes = readFileSync(path)
    bytes[5]! ^= 1
    writeFileSync(path, bytes)
    expect((await identifyImages(directory, digests)).dataSource).toBe('other')
  })

  test('a synthetic set is synthetic, and without its list still not CIFAR-10', async () => {
    const directory = join(root, 'made')
    await writeSynthetic({ directory, seed: 3, recordsPerFile: 5 })
    expect((await identifyImages(directory, digests)).dataSource).toBe('synthetic')
    rmSync(join(directory, 'batches.meta.txt'))
    expect(await identifyImages(directory, digests)).toMatchObject({ dataSource: 'other', classes: cifar10Classes })
    writeFileSync(join(directory, 'batches.meta.txt'), 'only\nthree\nnames\n')
    expect(await identifyImages(directory, digests)).toMatchObject({ dataSource: 'other', classes: cifar10Classes })
  })
})
