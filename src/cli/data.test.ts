import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { testContext } from '../../test/cli-context.ts'
import { fetchData, inspectData, synthesizeData } from './data.ts'
import { synthesizeCifar10, synthesizeCriteo } from './data-commands.ts'

const root = mkdtempSync(join(tmpdir(), 'cli-data-'))
afterAll(() => rmSync(root, { recursive: true }))

async function outputOf(command: (write: (text: string) => void) => Promise<unknown>): Promise<string> {
  let output = ''
  await command((text) => {
    output += text
  })
  return output
}

const directory = join(root, 'made')

test('synthesize, then inspect, for people', async () => {
  const made = await outputOf((write) => synthesizeData({ directory, seed: 4, recordsPerFile: 20, json: false, write }))
  expect(made).toBe(`Synthetic images, seed 4, 6 files of 20, in ${directory}. This is not CIFAR-10.\n`)
  const seen = await outputOf((write) => inspectData({ directory, json: false, write }))
  expect(seen).toContain(`${directory}: synthetic images made by cloister: NOT CIFAR-10\n`)
  expect(seen).toMatch(/\ntest_batch\.bin {8}20 records {5}61460 bytes {2}[0-9a-f]{64} {2}not as published\n/)
  expect(seen).toMatch(/\ntraining: 100 images, mean red 0\.\d{4}, green 0\.\d{4}, blue 0\.\d{4}\n/)
  expect(seen).toMatch(/\n {2}synthetic-cross-along +2\n$/)
})

test('the same as JSON, with the means of the pixels in the file', async () => {
  const output = await outputOf((write) => inspectData({ directory, json: true, write }))
  const { parts, ...inspection } = JSON.parse(output)
  expect(inspection).toMatchObject({ dataSource: 'synthetic', directory })
  const bytes = readFileSync(join(directory, 'test_batch.bin'))
  const means = [0, 1, 2].map((channel) => {
    let sum = 0
    for (let record = 0; record < 20; record++) {
      for (let pixel = 0; pixel < 1024; pixel++) sum += bytes[record * 3073 + 1 + channel * 1024 + pixel]!
    }
    return sum / (20 * 1024 * 255)
  })
  expect(parts[1].examples).toBe(20)
  parts[1].channelMeans.forEach((mean: number, channel: number) => {
    expect(mean).toBeCloseTo(means[channel]!, 10)
  })
})

test('refusals come through: a bad label, nothing to fetch from', async () => {
  const path = join(directory, 'data_batch_2.bin')
  const bytes = readFileSync(path)
  bytes[3073] = 200
  writeFileSync(path, bytes)
  await expect(inspectData({ directory, json: false, write: () => {} })).rejects.toMatchObject({
    code: 'label-out-of-range',
    message: expect.stringContaining('data_batch_2.bin: expected a label from 0 to 9, got 200 in record 1'),
  })
  await expect(
    fetchData({ cacheDirectory: root, address: 'http://127.0.0.1:1/', json: false, write: () => {} }),
  ).rejects.toMatchObject({ code: 'data-offline' })
})

test('a directory that cannot be made is no bug of ours: the error says so, and what to do', async () => {
  const file = join(root, 'a-file')
  writeFileSync(file, '')
  const { context } = testContext({ cwd: root })
  const refused = { code: 'data-unwritable', hint: expect.stringContaining('may write to') }
  await expect(synthesizeCifar10(context, { seed: 1, records: 10 }, join(file, 'images'))).rejects.toMatchObject(
    refused,
  )
  const rows = synthesizeCriteo(context, { rows: 10, seed: 1, files: 1 }, join(file, 'clicks'))
  await expect(rows).rejects.toMatchObject(refused)
})
