import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeFileAtomically } from './atomic-file.ts'
import { loadModel, type ModelFiles, saveModel } from './model-files.ts'

const jobDigest = new Uint8Array(32).fill(3)
const model: ModelFiles = {
  version: 41,
  jobDigest,
  variables: [
    { name: 'conv/kernel', shape: [2, 2], role: 'weight', data: Float32Array.of(1, 2, 3, 4.5) },
    { name: 'norm/mean', shape: [1], role: 'statistic', data: Float32Array.of(-0) },
  ],
  slots: new Map([
    ['velocity', [{ name: 'conv/kernel', shape: [2, 2], data: Float32Array.of(5, 6, 7, 8) }]],
    ['second', [{ name: 'conv/kernel', shape: [2, 2], data: Float32Array.of(9, 9, 9, 9) }]],
  ]),
}

let directory = ''
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cloister-model-'))
})
afterEach(() => rm(directory, { recursive: true }))

test('values, slots and version come back', async () => {
  await saveModel(join(directory, 'model'), model)
  const loaded = await loadModel(join(directory, 'model'), jobDigest)
  expect(loaded?.version).toBe(41)
  expect(loaded?.values).toEqual(new Map(model.variables.map(({ name, data }) => [name, data])))
  expect(loaded?.slots.get('velocity')).toEqual(new Map([['conv/kernel', Float32Array.of(5, 6, 7, 8)]]))
  expect(loaded?.slots.get('second')).toEqual(new Map([['conv/kernel', Float32Array.of(9, 9, 9, 9)]]))
})

test('the description is for people and other programs', async () => {
  await saveModel(directory, model)
  expect(JSON.parse(await readFile(join(directory, 'variables.json'), 'utf8'))).toEqual({
    version: 41,
    job: '03'.repeat(32),
    values: 'variables.safetensors',
    variables: [
      { name: 'conv/kernel', shape: [2, 2], role: 'weight', dtype: 'float32' },
      { name: 'norm/mean', shape: [1], role: 'statistic', dtype: 'float32' },
    ],
  })
})

test('no model is nothing, and not an error', async () => {
  expect(await loadModel(directory, jobDigest)).toBeUndefined()
})

describe('refused', () => {
  test('a model of another job', async () => {
    await saveModel(directory, model)
    await expect(loadModel(directory, new Uint8Array(32))).rejects.toMatchObject({ code: 'model-of-another-job' })
  })

  test('a truncated file', async () => {
    const path = await saveModel(directory, model)
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
    await expect(writeFileAtomically(join(file, 'x'), [])).rejects.toMatchObject({ code: 'model-unwritable' })
  })
})

test('state of the optimizer of another version is left out', async () => {
  await saveModel(directory, model)
  const older = await readFile(join(directory, 'optimizer.safetensors'))
  await saveModel(directory, { ...model, version: 42 })
  await writeFile(join(directory, 'optimizer.safetensors'), older)
  const loaded = await loadModel(directory, jobDigest)
  expect(loaded).toMatchObject({ version: 42, slots: new Map() })
})

test('a write that fails leaves the old file and no other', async () => {
  const path = join(directory, 'file')
  await writeFileAtomically(path, [Buffer.from('old')])
  const parts = function* () {
    yield Buffer.from('new, but ')
    throw new Error('disk full')
  }
  await expect(writeFileAtomically(path, parts())).rejects.toMatchObject({ code: 'model-unwritable' })
  expect(await readFile(path, 'utf8')).toBe('old')
  expect(await readdir(directory)).toEqual(['file'])
})
