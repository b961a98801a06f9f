import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { forge } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { AttestationError } from './error.ts'
import { certificationDataTypes, quoteFields } from './format.ts'
import { maxQuoteBytes, parseQuote } from './quote.ts'

const { quote } = forge()
const changed = (body: (quote: Buffer) => void): Buffer => {
  const copy = Buffer.from(quote)
  body(copy)
  return copy
}
const certificationOffset = quoteFields.qeAuthDataLength.offset + 2 + 32

test('a quote reads as it was written', () => {
  const parsed = parseQuote(quote)
  expect(parsed.report).toMatchObject({
    mrEnclave: '11'.repeat(32),
    mrSigner: '22'.repeat(32),
    svn: 3,
    flags: 5n,
    xfrm: 3n,
  })
  expect(parsed.report.reportData.equals(Buffer.alloc(64, 0x5a))).toBe(true)
  expect(parsed.qeReport).toMatchObject({ mrSigner: 'aa'.repeat(32), productId: 1, svn: 8 })
  expect(parsed.qeAuthData.equals(Buffer.alloc(32, 7))).toBe(true)
  expect(parsed.certification.type).toBe('pck-chain')
})

test('what was parsed does not change with the bytes that it came from', () => {
  const bytes = Buffer.from(quote)
  const parsed = parseQuote(bytes)
  bytes.fill(0)
  expect(parsed.raw.equals(quote)).toBe(true)
})

test('§6.14 truncated quote at every boundary', () => {
  const codes = new Set<string | undefined>()
  for (let size = 0; size < quote.length; size++) codes.add(codeOf(() => parseQuote(quote.subarray(0, size))))
  expect([...codes]).toEqual(['quote-truncated'])
})

test('§6.14 truncated with the length field set right', () => {
  for (let size = quoteFields.signature.offset; size < quote.length; size += 1) {
    const cut = changed((it) =>
      it.writeUInt32LE(size - quoteFields.signature.offset, quoteFields.signatureDataLength.offset),
    )
    expect(codeOf(() => parseQuote(cut.subarray(0, size)))).toBe('quote-malformed')
  }
})

describe('§6.15 length overflow', () => {
  test.each([
    ['signature data', quoteFields.signatureDataLength.offset, 4, 'quote-truncated'],
    ['QE authentication data', quoteFields.qeAuthDataLength.offset, 2, 'quote-malformed'],
    ['certification data', certificationOffset + 2, 4, 'quote-malformed'],
  ])('%s', (_, offset, size, code) => {
    for (const value of [2 ** (8 * size) - 1, 2 ** (8 * size - 1)]) {
      expect(codeOf(() => parseQuote(changed((it) => it.writeUIntLE(value, offset, size))))).toBe(code)
    }
  })
  test('certification data one byte off', () => {
    const size = quote.readUInt32LE(certificationOffset + 2)
    for (const wrong of [size - 1, size + 1]) {
      expect(codeOf(() => parseQuote(changed((it) => it.writeUInt32LE(wrong, certificationOffset + 2))))).toBe(
        'quote-malformed',
      )
    }
  })
  test('more than any quote has', () => {
    expect(codeOf(() => parseQuote(Buffer.alloc(maxQuoteBytes + 1)))).toBe('quote-malformed')
  })
})

test('§6.16 trailing bytes', () => {
  for (const tail of [[0], [0, 0, 0, 0], [0xff]]) {
    expect(codeOf(() => parseQuote(Buffer.concat([quote, Buffer.from(tail)])))).toBe('quote-trailing-bytes')
  }
})

describe('§6.17 what is not an ECDSA quote of version 3 from SGX', () => {
  const { version, attestationKeyType, teeType, qeVendorId } = quoteFields
  test.each([
    ['version 1 (EPID)', version.offset, 1, 'quote-epid-unsupported'],
    ['version 2 (EPID)', version.offset, 2, 'quote-epid-unsupported'],
    ['version 4', version.offset, 4, 'quote-version-unsupported'],
    ['version 5', version.offset, 5, 'quote-version-unsupported'],
    ['TDX', teeType.offset, 0x81, 'quote-tdx-unsupported'],
    ['another TEE', teeType.offset, 1, 'quote-malformed'],
    ['ECDSA on P-384', attestationKeyType.offset, 3, 'quote-key-type-unsupported'],
    ['EPID key', attestationKeyType.offset, 0, 'quote-key-type-unsupported'],
    ['another quoting enclave', qeVendorId.offset, 0, 'quote-qe-unsupported'],
  ])('%s', (_, offset, value, code) => {
    expect(codeOf(() => parseQuote(changed((it) => it.writeUInt8(value, offset))))).toBe(code)
  })
  test('TDX quotes of version 4 and 5 are called by their name', () => {
    for (const number of [4, 5]) {
      const tdx = changed((it) => {
        it.writeUInt16LE(number, version.offset)
        it.writeUInt32LE(0x81, teeType.offset)
      })
      expect(codeOf(() => parseQuote(tdx))).toBe('quote-tdx-unsupported')
    }
  })
  test.each([
    0,
    certificationDataTypes.pckLeaf,
    certificationDataTypes.qeReport,
    certificationDataTypes.platformManifest,
    8,
  ])('certification data of type %i', (type) => {
    const other = changed((it) => it.writeUInt16LE(type, certificationOffset))
    expect(codeOf(() => parseQuote(other))).toBe('quote-certification-unsupported')
  })
  test('an identifier of the wrong size', () => {
    for (const type of [1, 2, 3]) {
      expect(codeOf(() => parseQuote(changed((it) => it.writeUInt16LE(type, certificationOffset))))).toBe(
        'quote-malformed',
      )
    }
  })
})

/** Parses, or refuses with an AttestationError: never anything else. */
const survives = (bytes: Uint8Array): void => {
  try {
    parseQuote(bytes)
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(AttestationError)
  }
}

test('any bytes at all', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2000 }), survives), { interruptAfterTimeLimit: 1000, numRuns: 3000 })
})

test('a quote with bytes replaced, removed and inserted', () => {
  const edit = fc.record({ at: fc.nat(quote.length), remove: fc.nat(40), insert: fc.uint8Array({ maxLength: 40 }) })
  const edited = fc
    .array(edit, { maxLength: 4 })
    .map((edits) =>
      edits.reduce(
        (bytes, { at, remove, insert }) => Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + remove)]),
        quote,
      ),
    )
  fc.assert(fc.property(edited, survives), { interruptAfterTimeLimit: 1000, numRuns: 3000 })
})
