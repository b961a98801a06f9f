// SPDX-License-Identifier: Apache-2.0
/**
 * A trained model in a directory: one `variables.safetensors`, or with several servers one of each
 * (`variables-1-of-2.safetensors`, …), and beside each a `.json` that says what is in it. Whoever writes them decides in which
 * form they reach the disk; what is read here is plain, and the host's to replace.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { RowsBlock } from './rows-block.ts'
import {
  type NamedIds,
  type NamedTensor,
  parseSafetensors,
  type SafetensorsFile,
  streamSafetensors,
  tableTensors,
  wholeTensor,
} from './safetensors.ts'
import { StorageError } from './storage-error.ts'

/** What one server has learnt. */
export interface ModelPart {
  /** Updates that the values have seen. */
  readonly version: number
  readonly jobDigest: Uint8Array
  readonly server: number
  readonly servers: number
  readonly variables: readonly (NamedTensor & { readonly role: string })[]
  /** The rows that exist; `blocks` is asked twice for the same. */
  readonly tables: readonly {
    readonly name: string
    readonly width: number
    readonly rows: number
    readonly blocks: () => Iterable<RowsBlock>
  }[]
}

/** Names of the part's files, without what the form of release adds. */
export function partNames({ server, servers }: Pick<ModelPart, 'server' | 'servers'>): {
  values: string
  json: string
} {
  const stem = servers === 1 ? 'variables' : `variables-${server + 1}-of-${servers}`
  return { values: `${stem}.safetensors`, json: `${stem}.json` }
}

export function valuesOf({ version, jobDigest, variables, tables }: ModelPart): AsyncGenerator<Uint8Array> {
  const metadata = { version: `${version}`, job: Buffer.from(jobDigest).toString('hex') }
  const rows = tables.flatMap(({ blocks, ...table }) => tableTensors(table, blocks))
  return streamSafetensors(metadata, [...variables.map(wholeTensor), ...rows])
}

/** Names, shapes and roles, no values. */
export function descriptionOf(part: ModelPart): Uint8Array {
  const { version, jobDigest, variables, tables } = part
  const description = {
    version,
    job: Buffer.from(jobDigest).toString('hex'),
    values: partNames(part).values,
    variables: variables.map(({ name, shape, role }) => ({ name, shape, role, dtype: 'float32' })),
    tables: tables.map(({ name, width, rows }) => ({ name, width, rows, dtype: 'float32' })),
  }
  return Buffer.from(`${JSON.stringify(description, undefined, 2)}\n`)
}

/** In the file: `<name>/ids` and `<name>/values`, in the same order. */
export interface SavedTable {
  readonly name: string
  readonly width: number
  readonly ids: Uint32Array
  /** ids.length × width. */
  readonly values: Float32Array
}

export interface LoadedModel {
  /** Of the newest part: servers of an asynchronous job count for themselves. */
  readonly version: number
  readonly values: ReadonlyMap<string, Float32Array>
  /** Of one table there may be several, one from each server. */
  readonly rows: readonly SavedTable[]
}

const partPattern = /^variables(?:-\d+-of-(\d+))?\.safetensors$/

/** Nothing when the directory holds no model; a model of another job, or with parts missing, is refused. */
export async function loadModel(directory: string, jobDigest: Uint8Array): Promise<LoadedModel | undefined> {
  const names = (await readdir(directory).catch(() => [])).filter((name) => partPattern.test(name)).sort()
  const [first] = names
  if (first === undefined) return undefined
  const expected = Number(partPattern.exec(first)![1] ?? 1)
  if (names.length !== expected) {
    throw new StorageError('model-unreadable', `${directory}: expected ${expected} parts, got ${names.join(', ')}`, {
      hint: 'Bring the parts of all servers of the job together in one directory, and of no other job.',
    })
  }
  const job = Buffer.from(jobDigest).toString('hex')
  const parts = await Promise.all(names.map((name) => readPart(join(directory, name), job)))
  return {
    version: Math.max(...parts.map(({ version }) => version)),
    values: new Map(parts.flatMap(({ values }) => [...values])),
    rows: parts.flatMap(({ rows }) => rows),
  }
}

async function readPart(path: string, job: string): Promise<LoadedModel> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new StorageError('model-unreadable', `${path}: expected a readable file`, {
      hint: 'Check the path, its permissions and the disk.',
      cause,
    })
  })
  const file = parseSafetensors(bytes)
  if (file.metadata.job !== job) {
    const got = file.metadata.job ?? 'an unknown job'
    throw new StorageError('model-of-another-job', `${path}: expected a model of job ${job}, got one of ${got}`, {
      hint: 'Choose another directory, or name the job that the model belongs to.',
    })
  }
  const version = Number(file.metadata.version)
  if (!Number.isSafeInteger(version) || version < 0) {
    throw new StorageError('model-malformed', `${path}: expected a version, got ${file.metadata.version}`, {
      hint: 'The file is damaged or not ours: use an intact copy.',
    })
  }
  return { version, ...contentOf(file) }
}

function contentOf({ tensors, ids }: SafetensorsFile): Pick<LoadedModel, 'values' | 'rows'> {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]))
  const rows = ids.map((each) => {
    const table = tableOf(each, byName)
    byName.delete(`${table.name}/values`)
    return table
  })
  return { values: new Map([...byName].map(([name, { data }]) => [name, data])), rows }
}

function tableOf({ name: idsName, data: ids }: NamedIds, tensors: ReadonlyMap<string, NamedTensor>): SavedTable {
  const name = idsName.replace(/\/ids$/, '')
  const rows = tensors.get(`${name}/values`)
  if (name === idsName || rows?.shape.length !== 2 || rows.shape[0] !== ids.length) {
    throw new StorageError('model-malformed', `${idsName}: expected as many rows in ${name}/values as ids`, {
      hint: 'The file is damaged or not ours: use an intact copy.',
    })
  }
  return { name, width: rows.shape[1]!, ids, values: rows.data }
}
