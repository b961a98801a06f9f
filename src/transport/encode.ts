// SPDX-License-Identifier: Apache-2.0
/**
 * Protobuf's binary form as pieces (https://protobuf.dev/programming-guides/encoding/): large `bytes` fields are the message's
 * own memory, uncopied, so that a frame is put together by one copy into memory of just its size. protobuf-es writes into a
 * buffer that it doubles and copies at the end, which for messages full of tensors cost a tenth of a server's time.
 */
import assert from 'node:assert/strict'
import { type DescField, type DescMessage, type MessageShape, ScalarType, toBinary } from '@bufbuild/protobuf'
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt'

const varint = 0
const lengthDelimited = 2

/** Bit for bit what `toBinary` gives; valid for as long as the message does not change. */
export function encodePieces<Desc extends DescMessage>(desc: Desc, message: MessageShape<Desc>): Uint8Array[] {
  const pieces: Uint8Array[] = []
  append(desc, message, pieces)
  return pieces
}

/** Bytes appended. */
function append<Desc extends DescMessage>(desc: Desc, message: MessageShape<Desc>, pieces: Uint8Array[]): number {
  const fields = walkedFields(desc)
  if (fields === undefined || message.$unknown !== undefined) {
    const whole = toBinary(desc, message)
    pieces.push(whole)
    return whole.length
  }
  let bytes = 0
  for (const field of fields) {
    const value = chosenValue(field, message as unknown as Record<string, unknown>)
    if (value === undefined) continue
    for (const element of field.fieldKind === 'list' ? (value as unknown[]) : [value]) {
      bytes += appendField(field, element, pieces)
    }
  }
  return bytes
}

function appendField(field: DescField, value: unknown, pieces: Uint8Array[]): number {
  if (field.fieldKind === 'scalar' && field.scalar === ScalarType.UINT32) {
    assert(Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffff_ffff, field.name)
    if (value === 0) return 0
    const piece = varints((field.number << 3) | varint, value as number)
    pieces.push(piece)
    return piece.length
  }
  let bytes: number
  const place = pieces.length
  if (value instanceof Uint8Array) {
    if (value.length === 0) return 0
    pieces.push(value)
    bytes = value.length
  } else {
    assert(field.message !== undefined)
    bytes = append(field.message, value as MessageShape<DescMessage>, pieces)
  }
  const header = varints((field.number << 3) | lengthDelimited, bytes)
  pieces.splice(place, 0, header)
  return header.length + bytes
}

function chosenValue(field: DescField, message: Record<string, unknown>): unknown {
  if (field.oneof === undefined) return message[field.localName]
  const chosen = message[field.oneof.localName] as { case: string | undefined; value?: unknown }
  return chosen.case === field.localName ? chosen.value : undefined
}

const walked = new WeakMap<DescMessage, readonly DescField[] | undefined>()

/** In the order of their numbers; undefined where one is of a kind that is left to protobuf-es. */
function walkedFields(desc: DescMessage): readonly DescField[] | undefined {
  if (!walked.has(desc)) {
    const fields = desc.fields.toSorted((a, b) => a.number - b.number)
    walked.set(desc, fields.every(isWalked) ? fields : undefined)
  }
  return walked.get(desc)
}

function isWalked(field: DescField): boolean {
  const always = field.presence === Number(FeatureSet_FieldPresence.IMPLICIT) && field.oneof === undefined
  if (field.fieldKind === 'scalar') {
    return always && (field.scalar === ScalarType.UINT32 || field.scalar === ScalarType.BYTES)
  }
  if (field.fieldKind === 'list') return field.listKind === 'message' && !field.delimitedEncoding
  return field.fieldKind === 'message' && !field.delimitedEncoding
}

function varints(...values: readonly number[]): Uint8Array {
  const bytes: number[] = []
  for (let value of values) {
    for (; value > 0x7f; value = Math.floor(value / 128)) bytes.push((value % 128) | 0x80)
    bytes.push(value)
  }
  return Uint8Array.from(bytes)
}
