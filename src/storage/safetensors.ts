// SPDX-License-Identifier: Apache-2.0
/**
 * Named float32 tensors, and vectors of row ids, in the safetensors format (github.com/huggingface/safetensors, README "Format"), which Python,
 * Rust and most model hubs read: the header's length as 64 bits little-endian, a JSON header that gives each tensor's
 * type, shape and place, then the tensors one behind the other. The file is the host's: the reader accepts nothing that
 * does not fit exactly.
 */
import assert from 'node:assert/strict'
import { bytesOf, type RowsBlock, rowNumbers } from './rows-block.ts'
import { StorageError } from './storage-error.ts'

export interface NamedTensor {
  readonly name: string
  readonly shape: readonly number[]
  readonly data: Float32Array
}

/** A vector of row ids: U32 in the file. */
export interface NamedIds {
  readonly name: string
  readonly data: Uint32Array
}

export interface SafetensorsFile {
  readonly metadata: Readonly<Record<string, string>>
  readonly tensors: readonly NamedTensor[]
  readonly ids: readonly NamedIds[]
}

const lengthBytes = 8
const bytesPerElement = 4
/** Far above what a model needs (about 100 bytes a tensor), far below what would hurt to parse. */
const maxHeaderBytes = 16 << 20

/** A tensor that is made while the file is written: a table of embeddings may be bigger than memory allows twice. */
export interface StreamedTensor {
  readonly name: string
  readonly dtype: 'F32' | 'U32'
  readonly shape: readonly number[]
  readonly content: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>
}

/** The file's bytes, in pieces. */
export async function* streamSafetensors(
  metadata: Readonly<Record<string, string>>,
  tensors: readonly StreamedTensor[],
): AsyncGenerator<Uint8Array> {
  const described = tensors.map((tensor) => ({
    ...tensor,
    bytes: tensor.shape.reduce((product, size) => product * size, bytesPerElement),
  }))
  yield* encodeHeader(metadata, described)
  for (const { name, bytes, content } of described) {
    let written = 0
    for await (const part of content()) {
      written += part.length
      yield part
    }
    assert.equal(written, bytes, `bytes of ${name}`)
  }
}

/** A tensor that is in memory; a view, not a copy. */
export function wholeTensor({ name, shape, data }: NamedTensor): StreamedTensor {
  return { name, dtype: 'F32', shape, content: () => [bytesOf(data)] }
}

/** A table as two tensors: `<table>/ids`, in whatever order its rows come, and `<table>/values`, a row for each id. Twice the same blocks. */
export function tableTensors(
  table: { readonly name: string; readonly width: number; readonly rows: number },
  blocks: () => Iterable<RowsBlock> | AsyncIterable<RowsBlock>,
): StreamedTensor[] {
  const { name, width, rows } = table
  const each = async function* (part: (block: RowsBlock) => Uint32Array | Float32Array): AsyncGenerator<Uint8Array> {
    for await (const block of blocks()) yield bytesOf(part(block))
  }
  return [
    { name: `${name}/ids`, dtype: 'U32', shape: [rows], content: () => each(({ ids }) => ids) },
    { name: `${name}/values`, dtype: 'F32', shape: [rows, width], content: () => each(valuesWithoutSlots) },
  ]
}

function valuesWithoutSlots(block: RowsBlock): Float32Array {
  const { ids, width, slots, values } = block
  if (slots.length === 0) return values
  const numbers = rowNumbers(block)
  const own = new Float32Array(ids.length * width)
  for (let row = 0; row < ids.length; row += 1) {
    own.set(values.subarray(row * numbers, row * numbers + width), row * width)
  }
  return own
}

interface DescribedTensor {
  readonly name: string
  readonly dtype: 'F32' | 'U32'
  readonly shape: readonly number[]
  readonly bytes: number
}

function encodeHeader(metadata: Readonly<Record<string, string>>, tensors: readonly DescribedTensor[]): Uint8Array[] {
  const header: Record<string, unknown> = { __metadata__: metadata }
  let end = 0
  for (const { name, dtype, shape, bytes } of tensors) {
    const begin = end
    end += bytes
    header[name] = { dtype, shape, data_offsets: [begin, end] }
  }
  const json = Buffer.from(JSON.stringify(header))
  // Spaces up to a multiple of eight, so that readers may map the tensors into memory.
  const padded = Buffer.alloc(Math.ceil(json.length / lengthBytes) * lengthBytes, ' ')
  json.copy(padded)
  const length = Buffer.alloc(lengthBytes)
  length.writeBigUInt64LE(BigInt(padded.length))
  return [length, padded]
}

export function parseSafetensors(bytes: Uint8Array): SafetensorsFile {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (buffer.length < lengthBytes) throw malformed(`at least ${lengthBytes} bytes`, `${buffer.length}`)
  const headerBytes = buffer.readBigUInt64LE()
  const bound = Math.min(maxHeaderBytes, buffer.length - lengthBytes)
  if (headerBytes > BigInt(bound)) throw malformed(`a header of at most ${bound} bytes`, `${headerBytes}`)
  const start = lengthBytes + Number(headerBytes)
  const { __metadata__: metadata, ...entries } = parseHeader(buffer.subarray(lengthBytes, start))
  const tensors = Object.entries(entries).map(([name, entry]) => ({ name, ...parseEntry(name, entry) }))
  // One behind the other from the first byte to the last: nothing shared, nothing hidden in between.
  let end = 0
  for (const { name, begin, end: itsEnd } of tensors.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== end) throw malformed(`${name} to begin at ${end}`, `${begin}`)
    end = itsEnd
  }
  if (start + end !== buffer.length) throw malformed(`${start + end} bytes in all`, `${buffer.length}`)
  const copy = ({ begin, end }: Entry): ArrayBuffer => {
    const data = new Uint8Array(end - begin)
    data.set(buffer.subarray(start + begin, start + end))
    return data.buffer
  }
  const ofType = (wanted: Entry['dtype']) => tensors.filter(({ dtype }) => dtype === wanted)
  return {
    metadata: parseMetadata(metadata),
    tensors: ofType('F32').map((entry) => ({
      name: entry.name,
      shape: entry.shape,
      data: new Float32Array(copy(entry)),
    })),
    ids: ofType('U32').map((entry) => ({ name: entry.name, data: new Uint32Array(copy(entry)) })),
  }
}

function parseHeader(bytes: Buffer): Record<string, unknown> {
  let header: unknown
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw malformed('a JSON header', 'something else', cause)
  }
  if (!isRecord(header)) throw malformed('a JSON object as header', JSON.stringify(header).slice(0, 40))
  return header
}

interface Entry {
  readonly dtype: 'F32' | 'U32'
  readonly shape: number[]
  readonly begin: number
  readonly end: number
}

function parseEntry(name: string, entry: unknown): Entry {
  if (!isRecord(entry)) throw malformed(`${name} to be an object`, typeof entry)
  const { dtype, shape, data_offsets: offsets, ...rest } = entry
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) throw malformed(`${name} to have dtype, shape and data_offsets`, unknown)
  if (dtype !== 'F32' && dtype !== 'U32') throw malformed(`${name} to be F32 or U32`, String(dtype))
  if (!isSizes(shape)) throw malformed(`${name} to have a shape`, JSON.stringify(shape) ?? 'none')
  if (!isSizes(offsets) || offsets.length !== 2)
    throw malformed(`${name} to have a place`, JSON.stringify(offsets) ?? 'none')
  const [begin, end] = offsets as [number, number]
  const bytes = shape.reduce((product, size) => product * size, bytesPerElement)
  if (end - begin !== bytes) throw malformed(`${name} of shape [${shape}] to have ${bytes} bytes`, `${end - begin}`)
  return { dtype, shape, begin, end }
}

function parseMetadata(metadata: unknown): Record<string, string> {
  if (metadata === undefined) return {}
  const entries = isRecord(metadata) ? Object.entries(metadata) : [['', undefined] as const]
  return Object.fromEntries(
    entries.map(([key, value]) => {
      if (typeof value !== 'string') throw malformed('metadata to be an object of strings', typeof value)
      return [key, value]
    }),
  )
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0)
}

function malformed(expected: string, got: string, cause?: unknown): StorageError {
  return new StorageError('model-malformed', `safetensors: expected ${expected}, got ${got}`, {
    hint: 'The file is damaged or not ours: use an intact copy, or remove it to begin anew.',
    cause,
  })
}
