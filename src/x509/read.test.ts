import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { at, forge, oid, tlv } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { type Der, derChildren, readDer, X509Error } from './der.ts'
import { keyUsages, oids, parseCertificate, parseRevocationList, refuseCritical } from './read.ts'

const { certificates, collateral } = forge((plan) => plan.pckCrl.revoked.push(7n, 0x8234n))
const crl = Buffer.from(collateral.pck_crl, 'hex')

test('a certificate reads as it was written', () => {
  const ca = parseCertificate(certificates.ca)
  expect(ca).toMatchObject({
    serial: '02',
    ca: true,
    pathLength: 0,
    keyUsage: new Set(['keyCertSign', 'crlSign']),
    subject: { commonName: 'Intel SGX PCK Platform CA' },
    issuer: { commonName: 'Test SGX Root CA' },
    notBefore: at(-365).getTime(),
    notAfter: at(365).getTime(),
    signatureAlgorithm: oids.ecdsaWithSha256,
  })
  expect(ca.authorityKeyId).toEqual(parseCertificate(certificates.root).subjectKeyId)
  expect(keyUsages[5]).toBe('keyCertSign')
})

test('a CRL reads as it was written', () => {
  const list = parseRevocationList(crl)
  expect([...list.revoked]).toEqual([
    ['07', at(-5).getTime()],
    ['008234', at(-5).getTime()],
  ])
  expect(list).toMatchObject({ number: '01', thisUpdate: at(-10).getTime(), nextUpdate: at(20).getTime() })
})

/** The tree again, with the element at `path` replaced by what `change` makes of it. */
function replaced(element: Der, path: readonly number[], change: (element: Der) => Buffer): Buffer {
  const [first, ...rest] = path
  if (first === undefined) return change(element)
  const children = derChildren(element).map((child, index) =>
    index === first ? replaced(child, rest, change) : child.raw,
  )
  return tlv(element.tag, ...children)
}
const certificate = readDer(certificates.ca)
const list = readDer(crl)
const followedBy = (more: Buffer) => (element: Der) => Buffer.concat([element.raw, more])
const sha384 = tlv(0x30, oid('1.2.840.10045.4.3.3'))
const extension = (name: string, critical: boolean, value: Buffer) =>
  tlv(0x30, oid(name), ...(critical ? [tlv(0x01, Buffer.from([0xff]))] : []), tlv(0x04, value))

describe('certificates that two readers could understand differently', () => {
  test.each([
    ['version 1', replaced(certificate, [0, 0], () => Buffer.alloc(0))],
    ['version 2', replaced(certificate, [0, 0, 0], () => Buffer.from([2, 1, 1]))],
    ['other algorithm outside', replaced(certificate, [1], () => sha384)],
    ['other algorithm inside', replaced(certificate, [0, 2], () => sha384)],
    [
      'algorithm with parameters',
      replaced(certificate, [1], () => tlv(0x30, oid(oids.ecdsaWithSha256), tlv(0x02, Buffer.from([1])))),
    ],
    ['negative serial in two octets', replaced(certificate, [0, 1], () => Buffer.from([2, 2, 0xff, 0xff]))],
    ['two common names', replaced(certificate, [0, 5, 0], (it) => Buffer.concat([it.raw, it.raw]))],
    ['three times of validity', replaced(certificate, [0, 4, 0], (it) => Buffer.concat([it.raw, it.raw]))],
    ['an issuer’s unique id', replaced(certificate, [0, 6], followedBy(tlv(0x81, Buffer.from([0, 1]))))],
    ['an extension twice', replaced(certificate, [0, 7, 0, 0], (it) => Buffer.concat([it.raw, it.raw]))],
    ['criticality written as FALSE', replaced(certificate, [0, 7, 0, 2, 1], () => Buffer.from([1, 1, 0]))],
    [
      'CA bit written as FALSE',
      replaced(certificate, [0, 7, 0, 2], () =>
        extension(oids.basicConstraints, true, tlv(0x30, Buffer.from([1, 1, 0]))),
      ),
    ],
    [
      'extension value with bytes behind',
      replaced(certificate, [0, 7, 0, 3], () => extension(oids.keyUsage, true, Buffer.from([3, 2, 1, 6, 0]))),
    ],
    ['two lists of extensions', replaced(certificate, [0, 7, 0], (it) => Buffer.concat([it.raw, it.raw]))],
    ['a fourth element', replaced(certificate, [2], followedBy(Buffer.from([5, 0])))],
    ['a signature of seven bits', replaced(certificate, [2], () => Buffer.from([3, 2, 1, 0x80]))],
    ['bytes behind', Buffer.concat([certificates.ca, Buffer.from([0])])],
    ['a CRL', crl],
  ])('%s', (_, der) => expect(codeOf(() => parseCertificate(der))).toBe('certificate-malformed'))
  test('the unchanged tree is the certificate', () => {
    expect(replaced(certificate, [0, 7, 0, 2], (it) => it.raw).equals(certificates.ca)).toBe(true)
  })
})

describe('CRLs', () => {
  test.each([
    ['version 1', replaced(list, [0, 0], () => Buffer.alloc(0))],
    ['without nextUpdate', replaced(list, [0, 4], () => Buffer.alloc(0))],
    ['without extensions', replaced(list, [0, 6], () => Buffer.alloc(0))],
    ['without a number', replaced(list, [0, 6, 0, 0], () => Buffer.alloc(0))],
    ['other algorithm outside', replaced(list, [1], () => sha384)],
    [
      'an indirect list',
      replaced(list, [0, 6, 0, 0], followedBy(extension('2.5.29.28', true, Buffer.from([0x30, 0])))),
    ],
    [
      'a critical extension of an entry',
      replaced(list, [0, 5, 1, 2, 0], () => extension('2.5.29.29', true, Buffer.from([0x30, 0]))),
    ],
    ['an entry of one element', replaced(list, [0, 5, 0], () => tlv(0x30, Buffer.from([2, 1, 7])))],
    ['a certificate', certificates.ca],
  ])('%s', (_, der) => expect(codeOf(() => parseRevocationList(der))).toBe('crl-malformed'))
  test('a critical reason is understood', () => {
    const critical = replaced(list, [0, 5, 1, 2, 0], () => extension(oids.reasonCode, true, Buffer.from([0x0a, 1, 1])))
    expect(parseRevocationList(critical).revoked.size).toBe(2)
  })
})

test('critical extensions that are not known stop the reader', () => {
  const { extensions } = parseCertificate(certificates.ca)
  expect(codeOf(() => refuseCritical(extensions, [oids.keyUsage, oids.basicConstraints]))).toBe(undefined)
  expect(codeOf(() => refuseCritical(extensions, [oids.keyUsage]))).toBe('certificate-malformed')
})

test('damaged structures read or are refused, and nothing else happens', () => {
  const edit = fc.record({ at: fc.nat(2000), remove: fc.nat(8), insert: fc.uint8Array({ maxLength: 8 }) })
  const damaged = fc.tuple(
    fc.constantFrom(certificates.ca, certificates.pck, crl),
    fc.array(edit, { minLength: 1, maxLength: 3 }),
  )
  const survives = ([der, edits]: [Buffer, { at: number; remove: number; insert: Uint8Array }[]]): void => {
    const bytes = edits.reduce((rest, { at, remove, insert }) => {
      const offset = at % rest.length
      return Buffer.concat([
        rest.subarray(0, offset),
        insert,
        rest.subarray(offset + remove),
        Buffer.alloc(1),
      ]).subarray(0, -1)
    }, der)
    for (const parse of [parseCertificate, parseRevocationList]) {
      try {
        parse(bytes)
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(X509Error)
      }
    }
  }
  fc.assert(fc.property(damaged, survives), { interruptAfterTimeLimit: 1500, numRuns: 4000 })
})
