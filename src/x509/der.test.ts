import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { oid, tlv } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import {
  derBitOctets,
  derBoolean,
  derChildren,
  derInteger,
  derNamedBits,
  derOid,
  derSmallInteger,
  derTime,
  readDer,
  X509Error,
} from './der.ts'

const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex')
const utcTime = (text: string) => readDer(tlv(0x17, Buffer.from(text)))
const generalizedTime = (text: string) => readDer(tlv(0x18, Buffer.from(text)))

describe('what BER allows and DER does not', () => {
  test.each([
    ['a length on more octets than it needs', '30 81 03 01 01 ff'],
    ['a length with a leading zero', '30 82 00 03 01 01 ff'],
    ['an indefinite length', '30 80 01 01 ff 00 00'],
    ['an indefinite length inside', '30 04 30 80 00 00'],
    ['a long tag', '1f 1f 00'],
    ['a truncated length', '30 82 01'],
    ['a length beyond the end', '30 05 01 01 ff'],
    ['a length of 4 GiB', '30 84 ff ff ff ff'],
    ['a length of 5 octets', '30 85 01 00 00 00 00'],
    ['bytes after the end', '01 01 ff 00'],
    ['nothing', ''],
    ['one byte', '30'],
  ])('%s', (_, hex) => expect(codeOf(() => derChildren(readDer(bytes(hex))))).toBe('der-malformed'))

  test.each([
    ['TRUE that is not ff', '01 01 01', derBoolean],
    ['a boolean of two octets', '01 02 ff ff', derBoolean],
    ['an integer with a leading zero', '02 02 00 01', derInteger],
    ['a negative integer with leading ones', '02 02 ff 80', derInteger],
    ['an empty integer', '02 00', derInteger],
    ['an OID with a padded arc', '06 03 80 01 01', derOid],
    ['an empty OID', '06 00', derOid],
    ['an OID that ends inside an arc', '06 02 2a 86', derOid],
    ['a bit string without its first octet', '03 00', derBitOctets],
    ['a key of seven bits', '03 02 01 80', derBitOctets],
    ['named bits with a bit set among the unused', '03 02 03 03', derNamedBits],
    ['another type', '04 01 ff', derBoolean],
    ['a string of strings', '24 04 04 02 01 02', derBitOctets],
  ] as const)('%s', (_, hex, read) => expect(codeOf(() => read(readDer(bytes(hex))))).toBe('der-malformed'))
})

test('values', () => {
  expect(derOid(readDer(oid('1.2.840.113741.1.13.1')))).toBe('1.2.840.113741.1.13.1')
  expect(derInteger(readDer(bytes('02 02 00 ff'))).toString('hex')).toBe('00ff')
  expect(derSmallInteger(readDer(bytes('02 02 00 ff')), 255)).toBe(255)
  expect(codeOf(() => derSmallInteger(readDer(bytes('02 02 01 00')), 255))).toBe('der-malformed')
  expect(codeOf(() => derSmallInteger(readDer(bytes('02 01 ff')), 255))).toBe('der-malformed')
  expect([...derNamedBits(readDer(bytes('03 02 01 06')))]).toEqual([0, 0, 0, 0, 0, 1, 1])
  const list = readDer(bytes('30 06 02 01 05 01 01 ff'))
  expect(derChildren(list).map((it) => it.raw.toString('hex'))).toEqual(['020105', '0101ff'])
})

describe('times of RFC 5280', () => {
  test.each([
    ['180521104510Z', '2018-05-21T10:45:10Z'],
    ['491231235959Z', '2049-12-31T23:59:59Z'],
    ['500101000000Z', '1950-01-01T00:00:00Z'],
    ['240229000000Z', '2024-02-29T00:00:00Z'],
  ])('UTCTime %s', (text, iso) => expect(derTime(utcTime(text))).toBe(Date.parse(iso)))
  test('GeneralizedTime', () =>
    expect(derTime(generalizedTime('20501231235959Z'))).toBe(Date.parse('2050-12-31T23:59:59Z')))
  test.each([
    '1805211045Z',
    '180521104510',
    '180521104510+0000',
    '180230000000Z',
    '181301000000Z',
    '180521240000Z',
    '180521106010Z',
    '180521104560Z',
    '',
  ])('not %s', (text) => expect(codeOf(() => derTime(utcTime(text)))).toBe('der-malformed'))
  test.each(['20180521104510.5Z', '201805211045Z', '20230229000000Z', '00500101000000Z'])('not %s', (text) =>
    expect(codeOf(() => derTime(generalizedTime(text)))).toBe('der-malformed'),
  )
})

test('three thousand levels of nesting cost no stack', () => {
  let nested: Buffer = Buffer.alloc(0)
  for (let depth = 0; depth < 3000; depth++) nested = tlv(0x30, nested)
  let element = readDer(nested)
  let depth = 1
  for (let [child] = derChildren(element); child; [child] = derChildren(element)) {
    element = child
    depth++
  }
  expect(depth).toBe(3000)
})

test('any bytes read or are refused, and what reads is exactly what was there', () => {
  const walk = (input: Uint8Array): void => {
    try {
      const element = readDer(input)
      expect(element.raw.equals(input)).toBe(true)
      if (element.tag & 0x20)
        expect(Buffer.concat(derChildren(element).map((it) => it.raw)).equals(element.content)).toBe(true)
    } catch (thrown) {
      if (!(thrown instanceof X509Error)) throw thrown
    }
  }
  const nearlyDer = fc
    .tuple(fc.constantFrom(0x30, 0x31, 0x02, 0x04, 0xa0), fc.array(fc.uint8Array({ maxLength: 30 }), { maxLength: 5 }))
    .map(([tag, parts]) => tlv(tag, ...parts.map((part) => tlv(0x04, part))))
  fc.assert(fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), nearlyDer), walk), {
    interruptAfterTimeLimit: 1000,
    numRuns: 3000,
  })
})
