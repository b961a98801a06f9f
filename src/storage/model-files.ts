// SPDX-License-Identifier: Apache-2.0
/**
 * A trained model in a directory: `variables.safetensors` holds the values, `variables.json` says what they are, and
 * `optimizer.safetensors` holds what training needs besides to go on. The host can read and replace these files; whoever
 * needs them secret or fresh seals them.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomically } from './atomic-file.ts'
import { encodeSafetensors, type NamedTensor, parseSafetensors, type SafetensorsFile } from './safetensors.ts'
import { StorageError } from './storage-error.ts'

export interface ModelFiles {
  /** Updates that the values have seen. */
  readonly version: number
  readonly jobDigest: Uint8Array
  readonly variables: readonly (NamedTensor & { readonly role: string })[]
  /** By slot of the optimizer. */
  readonly slots: ReadonlyMap<string, readonly NamedTensor[]>
}

export interface LoadedModel {
  readonly version: number
  readonly values: ReadonlyMap<string, Float32Array>
  /** Empty when the optimizer's state is missing or of another version, as after a crash between two files. */
  readonly slots: ReadonlyMap<string, ReadonlyMap<string, Float32Array>>
}

const valuesFile = 'variables.safetensors'
const slotsFile = 'optimizer.safetensors'

/** Each file is replaced as a whole. The values come last: their version is the model's. Returns their path. */
export async function saveModel(directory: string, model: ModelFiles): Promise<string> {
  const { version, variables, slots } = model
  const job = Buffer.from(model.jobDigest).toString('hex')
  const metadata = { version: `${version}`, job }
  const description = variables.map(({ name, shape, role }) => ({ name, shape, role, dtype: 'float32' }))
  const json = JSON.stringify({ version, job, values: valuesFile, variables: description }, undefined, 2)
  const state = [...slots].flatMap(([slot, tensors]) =>
    tensors.map((tensor) => ({ ...tensor, name: `${slot}/${tensor.name}` })),
  )
  const path = join(directory, valuesFile)
  await writeFileAtomically(join(directory, slotsFile), encodeSafetensors({ metadata, tensors: state }))
  await writeFileAtomically(join(directory, 'variables.json'), [Buffer.from(`${json}\n`)])
  await writeFileAtomically(path, encodeSafetensors({ metadata, tensors: variables }))
  return path
}

/** Nothing when the directory holds no model; a model of another job is refused. */
export async function loadModel(directory: string, jobDigest: Uint8Array): Promise<LoadedModel | undefined> {
  const file = await readIfThere(join(directory, valuesFile))
  if (file === undefined) return undefined
  const job = Buffer.from(jobDigest).toString('hex')
  if (file.metadata.job !== job) {
    throw new StorageError(
      'model-of-another-job',
      `${directory}: expected a model of job ${job}, got one of ${file.metadata.job ?? 'an unknown job'}`,
      { hint: 'Choose another directory, or go on with the job that the model belongs to.' },
    )
  }
  const version = Number(file.metadata.version)
  if (!Number.isSafeInteger(version) || version < 0) {
    throw new StorageError('model-malformed', `${directory}: expected a version, got ${file.metadata.version}`, {
      hint: 'The file is damaged or not ours: use an intact copy, or remove it to begin anew.',
    })
  }
  const state = await readIfThere(join(directory, slotsFile))
  const fits = state?.metadata.job === job && state.metadata.version === file.metadata.version
  return {
    version,
    values: new Map(file.tensors.map(({ name, data }) => [name, data])),
    slots: fits ? bySlot(state.tensors) : new Map(),
  }
}

function bySlot(tensors: readonly NamedTensor[]): Map<string, Map<string, Float32Array>> {
  const slots = new Map<string, Map<string, Float32Array>>()
  for (const { name, data } of tensors) {
    const [slot = ''] = name.split('/', 1)
    const values = slots.get(slot) ?? new Map<string, Float32Array>()
    slots.set(slot, values.set(name.slice(slot.length + 1), data))
  }
  return slots
}

async function readIfThere(path: string): Promise<SafetensorsFile | undefined> {
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new StorageError('model-unreadable', `expected to read ${path}, got: ${(cause as Error).message}`, {
      hint: 'Check that the file may be read.',
      cause,
    })
  }
  return parseSafetensors(bytes)
}
