// SPDX-License-Identifier: Apache-2.0
/**
 * DER (ITU-T X.690, chapters 8 and 10), read strictly and lazily. asn1-ts decodes; this file refuses what it lets through
 * although DER has another form for it: padded and indefinite lengths, padded integers, bytes after the end. The host may
 * choose every byte. An element is decoded when it is asked for, so nesting costs no stack.
 */
import { type ASN1Element, DERElement } from 'asn1-ts'
import { CodedError } from '../errors.ts'
import { memoize } from './memo.ts'

export type X509ErrorCode = 'der-malformed' | 'pem-malformed' | 'certificate-malformed' | 'crl-malformed'
export class X509Error extends CodedError<X509ErrorCode> {}

/** Identifier octets of the types that X.509 uses. */
export const derTags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  printableString: 0x13,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** An element: its identifier octet, its content octets, and all octets as they stand in the input. */
export class Der {
  readonly tag: number
  readonly content: Buffer
  readonly size: number
  readonly #source: Buffer

  constructor(source: Buffer, size: number, content: Buffer) {
    this.tag = source[0]!
    this.content = content
    this.size = size
    this.#source = source
  }

  get raw(): Buffer {
    return this.#source.subarray(0, this.size)
  }
}

export function derMalformed(expected: string, got: string, cause?: unknown): X509Error {
  const hint = 'The bytes are damaged, or were not written by a DER encoder: fetch them again from their source.'
  return new X509Error(
    'der-malformed',
    `Expected ${expected}, got ${got}.`,
    cause === undefined ? { hint } : { hint, cause },
  )
}

/** The one element that fills `bytes`. */
export function readDer(bytes: Uint8Array, expectedTag?: number): Der {
  const element = readFirst(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
  if (element.size !== bytes.length) {
    throw derMalformed('one element', `${bytes.length - element.size} bytes after its end`)
  }
  return expectedTag === undefined ? element : expectTag(element, expectedTag)
}

/** The elements inside a constructed one. */
export function derChildren(parent: Der, expectedTag?: number): Der[] {
  if (expectedTag !== undefined) expectTag(parent, expectedTag)
  if ((parent.tag & 0x20) === 0) throw derMalformed('a constructed element', `tag 0x${parent.tag.toString(16)}`)
  const children: Der[] = []
  for (let rest = parent.content; rest.length > 0; ) {
    const child = readFirst(rest)
    children.push(child)
    rest = rest.subarray(child.size)
  }
  return children
}

export function expectTag(element: Der, tag: number): Der {
  if (element.tag !== tag) throw derMalformed(`tag 0x${tag.toString(16)}`, `tag 0x${element.tag.toString(16)}`)
  return element
}

/** Two's complement octets of an INTEGER or ENUMERATED in their shortest form. */
export function derInteger(element: Der, tag: number = derTags.integer): Buffer {
  const { content } = expectTag(element, tag)
  const padded =
    content.length > 1 && (content[0] === 0 ? content[1]! < 0x80 : content[0] === 0xff && content[1]! > 0x7f)
  if (content.length === 0 || padded) throw derMalformed('an integer in its shortest form', content.toString('hex'))
  return content
}

/** A non-negative INTEGER or ENUMERATED that must not be greater than `maximum`. */
export function derSmallInteger(element: Der, maximum: number, tag: number = derTags.integer): number {
  const octets = derInteger(element, tag)
  const value = octets.length <= 6 && octets[0]! < 0x80 ? octets.readUIntBE(0, octets.length) : Number.POSITIVE_INFINITY
  if (value > maximum) throw derMalformed(`an integer from 0 to ${maximum}`, `0x${octets.toString('hex')}`)
  return value
}

export const derBoolean = (element: Der): boolean => decode(expectTag(element, derTags.boolean), (it) => it.boolean)
/** In dots. Certificates of one PKI use the same few. */
export const derOid: (element: Der) => string = memoize(
  256,
  (element) => expectTag(element, derTags.oid).content.toString('latin1'),
  (element) => decode(element, (it) => it.objectIdentifier.toString()),
)
/** One number a bit, first bit first. */
export const derNamedBits = (element: Der): Uint8ClampedArray =>
  decode(expectTag(element, derTags.bitString), (it) => it.bitString)

/** A BIT STRING that holds whole octets: a key or a signature. */
export function derBitOctets(element: Der): Buffer {
  const { content } = expectTag(element, derTags.bitString)
  if (content[0] !== 0) throw derMalformed('a bit string of whole octets', content.subarray(0, 1).toString('hex'))
  return content.subarray(1)
}

/** An OCTET STRING, of exactly `size` octets if that is given. */
export function derOctets(element: Der, size?: number): Buffer {
  const { content } = expectTag(element, derTags.octetString)
  if (size !== undefined && content.length !== size) throw derMalformed(`${size} octets`, `${content.length}`)
  return content
}

const timeForms: Readonly<Record<number, RegExp>> = {
  [derTags.utcTime]: /^\d{12}Z$/,
  [derTags.generalizedTime]: /^\d{14}Z$/,
}

/** Milliseconds since 1970. Only the two forms of RFC 5280, 4.1.2.5: seconds present, in UTC. */
export function derTime(element: Der): number {
  const text = element.content.toString('latin1')
  if (!timeForms[element.tag]?.test(text)) {
    throw derMalformed('a UTCTime or GeneralizedTime ending in seconds and Z', JSON.stringify(text))
  }
  const yearDigits = text.length - 11
  const written = Number(text.slice(0, yearDigits))
  const year = yearDigits === 4 ? written : written + (written >= 50 ? 1900 : 2000)
  const pair = (index: number): number => Number(text.slice(yearDigits + 2 * index, yearDigits + 2 * index + 2))
  const [month, day, minute, second] = [pair(0), pair(1), pair(3), pair(4)]
  const time = Date.UTC(year, month - 1, day, pair(2), minute, second)
  // Date.UTC carries 31 February over into March, 24:00 into the next day, and year 50 to 1950: such a time does not exist.
  const date = new Date(time)
  const sameDay = date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day
  const exists = sameDay && minute < 60 && second < 60
  if (!exists) throw derMalformed('a date that exists', JSON.stringify(text))
  return time
}

/** Making one for each element costs more than reading it. */
const reader = new DERElement()

function readFirst(bytes: Buffer): Der {
  let size: number
  try {
    size = reader.fromBytes(bytes)
  } catch (cause) {
    throw derMalformed('a DER element', cause instanceof Error ? cause.message : String(cause), cause)
  }
  const length = reader.valueLength()
  const lengthSize = length < 0x80 ? 1 : length < 0x100 ? 2 : length < 0x1_0000 ? 3 : length < 0x100_0000 ? 4 : 5
  // Only tags below 31 occur in X.509; `80` (indefinite) reads as length 0, `81 05` as length 5.
  if (size !== 1 + lengthSize + length || (length === 0 && bytes[1] !== 0)) {
    throw derMalformed('a short tag and the shortest length', bytes.subarray(0, 6).toString('hex'))
  }
  const content = reader.value
  return new Der(bytes, size, content instanceof Buffer ? content : Buffer.from(content))
}

/** The value as the library reads it; its getters throw where it is not DER. */
function decode<T>(element: Der, read: (decoded: ASN1Element) => T): T {
  const decoded = new DERElement()
  try {
    decoded.fromBytes(element.raw)
    return read(decoded)
  } catch (cause) {
    throw derMalformed('a value in DER', cause instanceof Error ? cause.message : String(cause), cause)
  }
}
