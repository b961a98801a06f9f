// SPDX-License-Identifier: Apache-2.0
/** `cloister export`: what it writes, what it refuses. That TensorFlow predicts the same: engine/saved-model.slow.test.ts. */
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { testContext } from '../../test/cli-context.ts'
import { engineDirectory, requires } from '../../test/requirements.ts'
import { jobDigest } from '../config/job.ts'
import { loadJob } from '../config/load.ts'
import { RowInitializer } from '../federation/row-initializer.ts'
import { writeFileAtomically } from '../storage/atomic-file.ts'
import { type ModelPart, valuesOf } from '../storage/model-files.ts'
import { exportModel, wholeTable } from './export.ts'
import { workloadOf } from './wiring.ts'

const example = resolve(import.meta.dirname, '../../examples/quick-start.json')
const options = { batchSize: 3, engineDirectory }

let run = ''
beforeEach(async () => {
  run = await mkdtemp(join(tmpdir(), 'cloister-export-'))
})
afterEach(() => rm(run, { recursive: true }))

requires('tensorflow-library').describe('export', () => {
  test('of a run: the file, and what goes in and out', async () => {
    const job = loadJob(example)
    const model = workloadOf(job).createModel()
    const values = model.initialValues(1)
    const variables = model.variables.map(({ name, shape, role }) => ({ name, shape, role, data: values.get(name)! }))
    await copyFile(example, join(run, 'job.json'))
    const out = join(run, 'exported')
    const { context, printed } = testContext()
    await expect(exportModel(context, { ...options, out }, run)).rejects.toMatchObject({ code: 'model-unreadable' })

    const save = (part: ModelPart['variables']) =>
      writeFileAtomically(
        join(run, 'model', 'variables.safetensors'),
        valuesOf({ version: 7, jobDigest: jobDigest(job), server: 0, servers: 1, variables: part, tables: [] }),
      )
    await save(variables.slice(1))
    await expect(exportModel(context, { ...options, out }, run)).rejects.toMatchObject({ code: 'model-malformed' })

    await save(variables)
    expect(await exportModel(context, { ...options, out }, run)).toBe(0)
    expect(printed.out).toBe(
      `${join(out, 'saved_model.pb')}: update 7, batches of 3\n` +
        '  in   images  uint8[3, 32, 32, 3]\n  out  probabilities  float32[3, 10]\n',
    )
    const bytes = await readFile(join(out, 'saved_model.pb'))
    expect(bytes.includes('serving_default')).toBe(true)
    expect(bytes.length).toBeGreaterThan(4 * variables.reduce((sum, { data }) => sum + data.length, 0))
  })
})

test('a table whole: rows as trained, all others as they would begin', () => {
  const table = { name: 'words', width: 3, rows: 5, field: 'ids', initial: { scale: 0.5 } }
  const saved = { name: 'words', width: 3, ids: Uint32Array.of(4, 1), values: Float32Array.of(1, 2, 3, 4, 5, 6) }
  const whole = wholeTable(table, [saved], 77)
  expect([...whole.subarray(12)]).toEqual([1, 2, 3])
  expect([...whole.subarray(3, 6)]).toEqual([4, 5, 6])
  const row = new Float32Array(3)
  for (const id of [0, 2, 3]) {
    new RowInitializer(table, 77).fill(id, row, 0)
    expect([...whole.subarray(3 * id, 3 * id + 3)]).toEqual([...row])
    expect(row.every((value) => value !== 0 && Math.abs(value) <= 0.5)).toBe(true)
  }
  const outside = { ...saved, ids: Uint32Array.of(4, 5) }
  expect(() => wholeTable(table, [outside], 77)).toThrowError(expect.objectContaining({ code: 'row-out-of-range' }))
  expect(() => wholeTable({ ...table, rows: 2 ** 28 }, [saved], 77)).toThrowError(
    expect.objectContaining({ code: 'export-too-large' }),
  )
})
