// SPDX-License-Identifier: Apache-2.0
/**
 * What a checkpoint holds besides rows of tables: a header of the caller's, named float32 tensors, named bytes, and which
 * files its rows are in (docs/storage-format.md, "Checkpoint"). All of it is inside one sealed file.
 */
import { stat } from 'node:fs/promises'
import { ByteReader } from './byte-reader.ts'
import type { RowFile } from './row-files.ts'
import { bytesOf } from './rows-block.ts'
import type { NamedTensor } from './safetensors.ts'
import { readSealed, type SealingOptions, writeSealed } from './sealed-file.ts'
import { StorageError } from './storage-error.ts'

export interface CheckpointFile {
  /** Anything that JSON can say. */
  readonly header: unknown
  readonly tensors: readonly NamedTensor[]
  readonly blobs: ReadonlyMap<string, Uint8Array>
  readonly rows: readonly RowFile[]
}

interface Description {
  readonly header: unknown
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[] }[]
  readonly blobs: readonly { readonly name: string; readonly bytes: number }[]
  readonly rows: readonly RowFile[]
}

const maxDescriptionBytes = 64 << 20

/** Returns the size of the file. */
export async function writeCheckpointFile(
  path: string,
  { header, tensors, blobs, rows }: CheckpointFile,
  sealing: SealingOptions,
): Promise<number> {
  const description: Description = {
    header,
    tensors: tensors.map(({ name, shape }) => ({ name, shape })),
    blobs: [...blobs].map(([name, { length: bytes }]) => ({ name, bytes })),
    rows,
  }
  const json = Buffer.from(JSON.stringify(description))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  return await writeSealed(
    path,
    [length, json, ...tensors.map(({ data }) => bytesOf(data)), ...blobs.values()],
    sealing,
  )
}

export async function readCheckpointFile(path: string, sealing: SealingOptions): Promise<CheckpointFile> {
  const reader = new ByteReader(readSealed(path, sealing))
  try {
    const { header, rows, ...described } = await readDescription(path, reader)
    const tensors: NamedTensor[] = []
    for (const { name, shape } of described.tensors) {
      const data = new Float32Array(elementsOf(shape))
      await reader.fill(bytesOf(data))
      tensors.push({ name, shape, data })
    }
    const blobs = new Map<string, Uint8Array>()
    for (const { name, bytes } of described.blobs) blobs.set(name, await reader.take(bytes))
    if (!(await reader.atEnd())) throw malformed(path, 'the end behind the last blob', 'more')
    return { header, tensors, blobs, rows }
  } finally {
    await reader.close()
  }
}

/** Reads the file to its end without keeping it; returns which rows belong to it. */
export async function verifyCheckpointFile(path: string, sealing: SealingOptions): Promise<readonly RowFile[]> {
  const reader = new ByteReader(readSealed(path, sealing))
  try {
    const { rows } = await readDescription(path, reader)
    await reader.drain()
    return rows
  } finally {
    await reader.close()
  }
}

async function readDescription(path: string, reader: ByteReader): Promise<Description> {
  const length = (await reader.take(4)).readUInt32LE()
  const { size } = await stat(path)
  const bound = Math.min(size, maxDescriptionBytes)
  if (length > bound) throw malformed(path, `a description of at most ${bound} bytes`, `${length}`)
  const description = parseDescription(path, (await reader.take(length)).toString())
  const tensorBytes = description.tensors.reduce((sum, { shape }) => sum + 4 * elementsOf(shape), 0)
  const bytes = description.blobs.reduce((sum, blob) => sum + blob.bytes, tensorBytes)
  if (bytes > size) throw malformed(path, `at most ${size} bytes of tensors and blobs`, `${bytes}`)
  return description
}

function parseDescription(path: string, json: string): Description {
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch (cause) {
    throw malformed(path, 'a description in JSON', 'something else', cause)
  }
  const { header, tensors, blobs, rows } = Object(parsed) as Record<string, unknown>
  const isTensor = ({ name, shape }: Record<string, unknown>): boolean =>
    typeof name === 'string' && Array.isArray(shape) && shape.every(isCount)
  const isBlob = ({ name, bytes }: Record<string, unknown>): boolean => typeof name === 'string' && isCount(bytes)
  const isRowFile = ({ salt, step, bytes }: Record<string, unknown>): boolean =>
    typeof salt === 'string' && /^[0-9a-f]{64}$/.test(salt) && isCount(step) && isCount(bytes)
  if (!isListOf(tensors, isTensor)) throw malformed(path, 'a list of tensors', 'something else')
  if (!isListOf(blobs, isBlob)) throw malformed(path, 'a list of blobs', 'something else')
  if (!isListOf(rows, isRowFile)) throw malformed(path, 'a list of files of rows', 'something else')
  return { header, tensors, blobs, rows } as Description
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0

function isListOf(value: unknown, isOne: (entry: Record<string, unknown>) => boolean): boolean {
  return Array.isArray(value) && value.every((entry) => isOne(Object(entry) as Record<string, unknown>))
}

function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

function malformed(path: string, expected: string, got: string, cause?: unknown): StorageError {
  return new StorageError('checkpoint-malformed', `${path}: expected ${expected}, got ${got}`, {
    hint: 'It was sealed by another version of this software: go on with that version, or begin anew elsewhere.',
    cause,
  })
}
