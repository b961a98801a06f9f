import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeFileAtomically } from './atomic-file.ts'
import { descriptionOf, loadModel, type ModelPart, partNames, valuesOf } from './model-files.ts'
import type { RowsBlock } from './rows-block.ts'
import { parseSafetensors, type StreamedTensor, streamSafetensors, wholeTensor } from './safetensors.ts'

const jobDigest = new Uint8Array(32).fill(3)
const model: ModelPart = {
  version: 41,
  jobDigest,
  server: 0,
  servers: 1,
  variables: [
    { name: 'conv/kernel', shape: [2, 2], role: 'weight', data: Float32Array.of(1, 2, 3, 4.5) },
    { name: 'norm/mean', shape: [1], role: 'statistic', data: Float32Array.of(-0) },
  ],
  tables: [],
}

/** As a plain release leaves it. */
async function save(part: ModelPart): Promise<string> {
  const path = join(directory, partNames(part).values)
  await writeFileAtomically(path, valuesOf(part))
  return path
}

/** One block with a slot, which is not released. */
function words(ids: readonly number[], values: readonly (readonly number[])[]): ModelPart['tables'][number] {
  const block: RowsBlock = {
    ...{ table: 'words', width: 2, slots: ['accumulator'], ids: Uint32Array.from(ids) },
    values: Float32Array.from(values.flatMap((row) => [...row, 9, 9])),
  }
  return { name: 'words', width: 2, rows: ids.length, blocks: () => [block] }
}

let directory = ''
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cloister-model-'))
})
afterEach(() => rm(directory, { recursive: true }))

test('values and version come back', async () => {
  await save(model)
  const loaded = await loadModel(directory, jobDigest)
  expect(loaded?.version).toBe(41)
  expect(loaded?.values).toEqual(new Map(model.variables.map(({ name, data }) => [name, data])))
})

test('rows of tables come back with their ids, apart from the variables, without slots', async () => {
  const table = words(
    [3, 4_294_967_295],
    [
      [1, 2],
      [3, 4],
    ],
  )
  const path = await save({ ...model, tables: [table] })
  const loaded = await loadModel(directory, jobDigest)
  const rows = { name: 'words', width: 2, ids: Uint32Array.of(3, 4_294_967_295), values: Float32Array.of(1, 2, 3, 4) }
  expect(loaded?.rows).toEqual([rows])
  expect([...loaded!.values.keys()]).toEqual(['conv/kernel', 'norm/mean'])
  const file = parseSafetensors(await readFile(path))
  const ids = (name: string, all: readonly number[]): StreamedTensor => {
    return { name, dtype: 'U32', shape: [all.length], content: () => [new Uint8Array(Uint32Array.from(all).buffer)] }
  }
  for (const changed of [ids('words/ids', [3]), ids('others/ids', [3, 4]), ids('words', [3, 4])]) {
    await writeFileAtomically(path, streamSafetensors(file.metadata, [...file.tensors.map(wholeTensor), changed]))
    await expect(loadModel(directory, jobDigest)).rejects.toMatchObject({ code: 'model-malformed' })
  }
})

test('parts of several servers make one model, and a missing one none', async () => {
  const [kernel, mean] = model.variables
  const first = { ...model, servers: 2, variables: [kernel!], tables: [words([1], [[1, 2]])] }
  const second = { ...model, server: 1, servers: 2, version: 43, variables: [mean!], tables: [words([2], [[3, 4]])] }
  await save(first)
  await expect(loadModel(directory, jobDigest)).rejects.toMatchObject({ code: 'model-unreadable' })
  await save(second)
  const loaded = await loadModel(directory, jobDigest)
  expect(loaded?.version).toBe(43)
  expect([...loaded!.values.keys()]).toEqual(['conv/kernel', 'norm/mean'])
  expect(loaded?.rows.map(({ ids }) => [...ids])).toEqual([[1], [2]])
})

test('the description is for people and other programs', () => {
  expect(JSON.parse(Buffer.from(descriptionOf({ ...model, tables: [words([3], [[1, 2]])] })).toString())).toEqual({
    version: 41,
    job: '03'.repeat(32),
    values: 'variables.safetensors',
    variables: [
      { name: 'conv/kernel', shape: [2, 2], role: 'weight', dtype: 'float32' },
      { name: 'norm/mean', shape: [1], role: 'statistic', dtype: 'float32' },
    ],
    tables: [{ name: 'words', width: 2, rows: 1, dtype: 'float32' }],
  })
})

test('no model is nothing, and not an error', async () => {
  expect(await loadModel(directory, jobDigest)).toBeUndefined()
})

describe('refused', () => {
  test('a model of another job', async () => {
    await save(model)
    await expect(loadModel(directory, new Uint8Array(32))).rejects.toMatchObject({ code: 'model-of-another-job' })
  })

  test('a truncated file', async () => {
    const path = await save(model)
    await writeFile(path, (await readFile(path)).subarray(0, -1))
    await expect(loadModel(directory, jobDigest)).rejects.toMatchObject({ code: 'model-malformed' })
  })

  test('a directory in place of the file', async () => {
    await mkdir(join(directory, 'variables.safetensors'))
    await expect(loadModel(directory, jobDigest)).rejects.toMatchObject({ code: 'model-unreadable' })
  })

  test('a directory that cannot be written', async () => {
    const file = join(directory, 'file')
    await writeFile(file, '')
    await expect(writeFileAtomically(join(file, 'x'), [])).rejects.toMatchObject({ code: 'storage-unwritable' })
  })
})

test('a write that fails leaves the old file and no other', async () => {
  const path = join(directory, 'file')
  await writeFileAtomically(path, [Buffer.from('old')])
  const parts = function* () {
    yield Buffer.from('new, but ')
    throw new Error('disk full')
  }
  await expect(writeFileAtomically(path, parts())).rejects.toThrow('disk full')
  expect(await readFile(path, 'utf8')).toBe('old')
  expect(await readdir(directory)).toEqual(['file'])
})
