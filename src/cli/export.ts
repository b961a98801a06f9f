// SPDX-License-Identifier: Apache-2.0
/** `cloister export`: the model of a run as TensorFlow's SavedModel, its rows that training never touched as they began. */
import { join } from 'node:path'
import { jobDigest } from '../config/job.ts'
import { loadJob } from '../config/load.ts'
import type { HostTensor } from '../engine/engine.ts'
import { engineDirectory } from '../engine/locate.ts'
import { compilePrediction } from '../engine/step.ts'
import { createTensorflowEngine } from '../engine/tensorflow.ts'
import { RowInitializer, rowOutOfRange } from '../federation/row-initializer.ts'
import type { Model, ModelTable } from '../models/model.ts'
import { writeFileAtomically } from '../storage/atomic-file.ts'
import { type LoadedModel, loadModel, type SavedTable } from '../storage/model-files.ts'
import { StorageError } from '../storage/storage-error.ts'
import { encodeSavedModel, exportTooLarge } from '../storage/tensorflow-model.ts'
import { type CliContext, cacheDirectory, exitStatus } from './context.ts'
import { workloadOf } from './wiring.ts'

export interface ExportOptions {
  readonly out: string
  readonly job?: string
  readonly batchSize: number
  readonly engineDirectory?: string
}

export async function exportModel(context: CliContext, options: ExportOptions, run: string): Promise<number> {
  const job = loadJob(options.job ?? join(run, 'job.json'))
  const saved = await loadModel(join(run, 'model'), jobDigest(job))
  if (saved === undefined) {
    throw new StorageError('model-unreadable', `expected a trained model in ${join(run, 'model')}, got none`, {
      hint: 'Name the directory of a run that has ended, or been stopped with Ctrl-C.',
    })
  }
  const model = workloadOf(job).createModel()
  const values = { parameters: parametersOf(model, saved), tables: tablesOf(model, saved, job.seed) }
  const directory = options.engineDirectory ?? context.env.CLOISTER_ENGINE
  const engine = createTensorflowEngine({
    directory: directory ?? engineDirectory(cacheDirectory(context.env)),
    threads: 1,
  })
  try {
    const program = compilePrediction(engine, model, options.batchSize, values)
    // One run of zeros tells the outputs' names and shapes.
    const zeros = Object.entries(program.inputs).map(([name, spec]) => [name, engine.tensor(spec)] as const)
    const outputs = await program.run(Object.fromEntries(zeros))
    const named = (tensors: Readonly<Record<string, Pick<HostTensor, 'shape' | 'dtype'>>>) =>
      new Map(Object.entries(tensors).map(([name, { shape, dtype }]) => [name, { name, shape, dtype }]))
    const graph = program.graphDef()!
    const parts = encodeSavedModel({ graph, inputs: named(program.inputs), outputs: named(outputs) })
    const path = join(options.out, 'saved_model.pb')
    await writeFileAtomically(path, parts)
    context.stdout.write(`${path}: update ${saved.version}, batches of ${options.batchSize}\n`)
    for (const [name, { shape, dtype }] of Object.entries(program.inputs))
      context.stdout.write(`  in   ${name}  ${dtype}[${shape.join(', ')}]\n`)
    for (const [name, { shape, dtype }] of Object.entries(outputs))
      context.stdout.write(`  out  ${name}  ${dtype}[${shape.join(', ')}]\n`)
    return exitStatus.ok
  } finally {
    await engine.close()
  }
}

function parametersOf(model: Model, { values }: LoadedModel): Map<string, HostTensor> {
  return new Map(
    model.variables.map(({ name, shape }) => {
      const data = values.get(name)
      const elements = shape.reduce((product, size) => product * size, 1)
      if (data?.length !== elements) throw malformed(name, `${elements} numbers`, `${data?.length ?? 'none'}`)
      return [name, { shape, dtype: 'float32', data }]
    }),
  )
}

/** A graph holds constants up to 2 GiB; making it takes several times its size in memory. */
const mostTableBytes = 2 ** 30

/** Whole, so that ids are their places. */
function tablesOf(model: Model, { rows }: LoadedModel, seed: number): Map<string, HostTensor> {
  return new Map(
    model.tables.map((table) => {
      const parts = rows.filter(({ name }) => name === table.name)
      const other = parts.find(({ width }) => width !== table.width)
      if (other !== undefined) throw malformed(table.name, `rows of ${table.width}`, `${other.width}`)
      return [table.name, { shape: [table.rows, table.width], dtype: 'float32', data: wholeTable(table, parts, seed) }]
    }),
  )
}

export function wholeTable(table: ModelTable, parts: readonly SavedTable[], seed: number): Float32Array {
  const { rows, width } = table
  if (rows * width * 4 > mostTableBytes) throw exportTooLarge(rows * width * 4)
  const whole = new Float32Array(rows * width)
  const initial = new RowInitializer(table, seed)
  for (let id = 0; id < rows; id++) initial.fill(id, whole, id * width)
  for (const { ids, values } of parts) {
    for (const [place, id] of ids.entries()) {
      if (id >= rows) throw rowOutOfRange(table, id)
      whole.set(values.subarray(place * width, (place + 1) * width), id * width)
    }
  }
  return whole
}

function malformed(name: string, expected: string, got: string): StorageError {
  return new StorageError('model-malformed', `${name}: expected ${expected}, got ${got}`, {
    hint: 'The model was saved by another version, or is not of this job: name the job with --job FILE.',
  })
}
