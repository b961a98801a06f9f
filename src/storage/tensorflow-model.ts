// SPDX-License-Identifier: Apache-2.0
/**
 * TensorFlow's SavedModel (tensorflow/core/protobuf/saved_model.proto, meta_graph.proto) of a graph whose values are constants
 * in it: one file, `saved_model.pb`, without variables beside it. TensorFlow, TensorFlow Serving and the converters of other
 * runtimes read it.
 */
import { StorageError } from './storage-error.ts'

export interface SignatureTensor {
  /** Of the placeholder or operation in the graph. */
  readonly name: string
  readonly shape: readonly number[]
  readonly dtype: 'float32' | 'bfloat16' | 'int32' | 'uint8'
}

export interface TensorflowModel {
  /** Serialised GraphDef. */
  readonly graph: Uint8Array
  /** Of the signature `serving_default`, by the name that callers use. */
  readonly inputs: ReadonlyMap<string, SignatureTensor>
  readonly outputs: ReadonlyMap<string, SignatureTensor>
}

/** Protocol buffers end at 2 GiB. */
const maxBytes = 2 ** 31 - 1

export function encodeSavedModel({ graph, inputs, outputs }: TensorflowModel): Uint8Array[] {
  const signature = Buffer.concat([
    ...entries(1, inputs, tensorInfo),
    ...entries(2, outputs, tensorInfo),
    text(3, 'tensorflow/serving/predict'),
  ])
  const information = bytes(1, Buffer.concat([text(4, 'serve'), text(5, '2.21.0')]))
  const signatures = Buffer.concat(entries(5, new Map([['serving_default', signature]]), (value) => value))
  // The graph is most of it: not copied into the messages around it.
  const head = [information, header(2, graph.length)]
  const metaGraphBytes = length([...head, graph, signatures])
  const parts = [number(1, 1), header(2, metaGraphBytes), ...head, graph, signatures]
  if (length(parts) > maxBytes) throw exportTooLarge(length(parts))
  return parts
}

/** Also what a caller says who sees that it will be before having made the graph. */
export function exportTooLarge(size: number): StorageError {
  return new StorageError('export-too-large', `expected a SavedModel below 2 GiB, got ${size} bytes`, {
    hint: 'Its tables have too many rows for constants of a graph: read variables.safetensors instead.',
  })
}

const dataTypes = { float32: 1, int32: 3, uint8: 4, bfloat16: 14 } as const

/** TensorInfo: name, dtype, TensorShapeProto of dimensions. */
function tensorInfo({ name, shape, dtype }: SignatureTensor): Buffer {
  const dimensions = Buffer.concat(shape.map((size) => bytes(2, number(1, size))))
  return Buffer.concat([text(1, `${name}:0`), number(2, dataTypes[dtype]), bytes(3, dimensions)])
}

/** A map field: messages of key and value. */
function entries<T>(field: number, map: ReadonlyMap<string, T>, encode: (value: T) => Buffer): Buffer[] {
  return Array.from(map, ([key, value]) => bytes(field, Buffer.concat([text(1, key), bytes(2, encode(value))])))
}

function length(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}

// The wire format of protocol buffers.

function varint(value: number): Buffer {
  const groups: number[] = []
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) groups.push((rest % 0x80) | 0x80)
  return Buffer.from([...groups, rest])
}

function number(field: number, value: number): Buffer {
  return Buffer.concat([varint(field << 3), varint(value)])
}

/** Of a field of so many bytes, which follow. */
function header(field: number, size: number): Buffer {
  return Buffer.concat([varint((field << 3) | 2), varint(size)])
}

function bytes(field: number, value: Uint8Array): Buffer {
  return Buffer.concat([header(field, value.length), value])
}

function text(field: number, value: string): Buffer {
  return bytes(field, Buffer.from(value))
}
