import { execFileSync, spawnSync } from 'node:child_process'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  authorityKeyIdentifier,
  basicConstraints,
  type CertificateFields,
  createCertificate,
  createCrl,
  crlDistributionPoint,
  keyUsage,
  pem,
  subjectKeyIdentifier,
} from './write.ts'

const keys = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const [root, leaf] = [keys(), keys()]
const rootName = { CN: 'Test Root CA', O: 'Tests', L: 'Santa Clara', ST: 'CA', C: 'US' }
const notBefore = new Date('2026-01-02T03:04:05Z')
const notAfter = new Date('2051-06-07T08:09:10Z')

const rootFields: CertificateFields = {
  serialNumber: 0x8000000000000000000000000000000000000001n >> 1n,
  issuer: rootName,
  subject: rootName,
  notBefore,
  notAfter,
  publicKey: root.publicKey,
  extensions: [
    authorityKeyIdentifier(root.publicKey),
    crlDistributionPoint('https://example.test/root.crl'),
    subjectKeyIdentifier(root.publicKey),
    keyUsage('keyCertSign', 'cRLSign'),
    basicConstraints({ ca: true, pathLength: 1 }),
  ],
  signingKey: root.privateKey,
}
const rootCertificate = createCertificate(rootFields)
const leafCertificate = createCertificate({
  ...rootFields,
  serialNumber: 0x80n,
  subject: { CN: 'Blatt № 1' },
  publicKey: leaf.publicKey,
  extensions: [
    basicConstraints({ ca: false }),
    keyUsage('digitalSignature', 'nonRepudiation'),
    { oid: '1.2.840.113741.1.13.1', critical: false, value: Buffer.from('not DER at all') },
    { oid: '0.6.9.42.840.113741.1337.6', critical: false, value: Buffer.alloc(5000, 7) },
  ],
})
const crl = (revoked: Parameters<typeof createCrl>[0]['revoked']) =>
  createCrl({
    issuer: rootName,
    number: 255n,
    thisUpdate: new Date('2026-05-01T00:00:00Z'),
    nextUpdate: new Date('2049-12-31T23:59:59Z'),
    revoked,
    signingKey: root.privateKey,
  })

describe('certificates', () => {
  test('OpenSSL reads back what was written', () => {
    const parsed = new X509Certificate(rootCertificate.pem)
    expect(parsed.subject).toBe('CN=Test Root CA\nO=Tests\nL=Santa Clara\nST=CA\nC=US')
    expect(parsed.serialNumber).toBe('4000000000000000000000000000000000000000')
    expect(new Date(parsed.validFrom)).toEqual(notBefore)
    expect(new Date(parsed.validTo)).toEqual(notAfter)
    expect(parsed.ca).toBe(true)
    expect(parsed.verify(root.publicKey)).toBe(true)
    expect(parsed.raw.equals(rootCertificate.der)).toBe(true)
    expect(new X509Certificate(leafCertificate.pem).serialNumber).toBe('80')
    expect(new X509Certificate(leafCertificate.pem).subject).toBe('CN=Blatt № 1')
  })

  test('a leaf verifies with its issuer only', () => {
    const parsed = new X509Certificate(leafCertificate.pem)
    expect(parsed.checkIssued(new X509Certificate(rootCertificate.pem))).toBe(true)
    expect(parsed.verify(root.publicKey)).toBe(true)
    expect(parsed.verify(leaf.publicKey)).toBe(false)
    expect(parsed.publicKey.equals(leaf.publicKey)).toBe(true)
  })

  test('any serial number, time and text comes back', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: (1n << 159n) - 1n }),
        fc.date({ min: new Date('1951-01-01'), max: new Date('9998-01-01'), noInvalidDate: true }),
        fc.stringMatching(/^[a-zA-Zäß€]{1,40}$/),
        (serialNumber, from, CN) => {
          const whole = new Date(Math.floor(from.getTime() / 1000) * 1000)
          const { pem } = createCertificate({
            ...rootFields,
            serialNumber,
            subject: { CN },
            notBefore: from,
            notAfter: new Date('9999-01-01'),
          })
          const parsed = new X509Certificate(pem)
          expect(BigInt(`0x${parsed.serialNumber}`)).toBe(serialNumber)
          expect(new Date(parsed.validFrom)).toEqual(whole)
          expect(parsed.subject).toBe(`CN=${CN}`)
        },
      ),
      { numRuns: 50 },
    )
  })

  test('misuse is a bug, not a certificate', () => {
    const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
    const [twice] = rootFields.extensions
    expect(() => createCertificate({ ...rootFields, signingKey: p384.privateKey })).toThrow('P-256')
    expect(() => createCertificate({ ...rootFields, extensions: [twice!, twice!] })).toThrow('once')
    expect(() => createCertificate({ ...rootFields, notBefore: notAfter, notAfter: notBefore })).toThrow('end before')
    expect(() => createCertificate({ ...rootFields, serialNumber: 1n << 159n })).toThrow('20 octets')
    expect(() => createCertificate({ ...rootFields, serialNumber: -1n })).toThrow('20 octets')
    expect(() => createCertificate({ ...rootFields, notBefore: new Date(Number.NaN) })).toThrow()
  })
})

describe('PEM', () => {
  test('lines of 64 that decode to the same bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (bytes) => {
        const lines = pem('CERTIFICATE', bytes).split('\n')
        expect(Buffer.from(lines.slice(1, -2).join(''), 'base64')).toEqual(Buffer.from(bytes))
        expect(Math.max(...lines.slice(1, -2).map((line) => line.length))).toBeLessThanOrEqual(64)
      }),
    )
  })
})

describe('the openssl program', () => {
  let directory = ''
  const file = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(directory, name), content)
    return join(directory, name)
  }
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'cloister-x509-'))
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  test('prints the extensions as meant', () => {
    const text = execFileSync('openssl', ['x509', '-noout', '-text', '-in', file('root.pem', rootCertificate.pem)], {
      encoding: 'utf8',
    })
    expect(text).toContain('CA:TRUE, pathlen:1')
    expect(text).toContain('Certificate Sign, CRL Sign')
    expect(text).toContain('URI:https://example.test/root.crl')
    const identifiers = [...text.matchAll(/Key Identifier: \n\s+([0-9A-F:]+)/g)].map((match) => match[1])
    expect(identifiers).toHaveLength(2)
    expect(identifiers[0]).toBe(identifiers[1])
  })

  test('reads a CRL: numbers, dates, reasons', () => {
    const list = crl([
      { serialNumber: 0x80n, revokedAt: new Date('2026-04-03T02:01:00Z'), reason: 'keyCompromise' },
      { serialNumber: 5n, revokedAt: new Date('2026-04-04T00:00:00Z') },
    ])
    const arguments_ = ['crl', '-noout', '-text', '-in', file('list.der', list.der), '-inform', 'DER']
    const text = execFileSync('openssl', arguments_, { encoding: 'utf8' })
    expect(text).toMatch(/Version 2/)
    expect(text).toMatch(/CRL Number: \n\s+255/)
    expect(text).toMatch(/Serial Number: 80\n\s+Revocation Date: Apr {2}3 02:01:00 2026 GMT/)
    expect(text).toContain('Key Compromise')
    expect(text).toMatch(/Serial Number: 05/)
    expect(text).toMatch(/Authority Key Identifier/)
  })

  test.each([
    ['nothing revoked', [], true],
    ['another one revoked', [{ serialNumber: 0x81n, revokedAt: notBefore }], true],
    ['the leaf revoked', [{ serialNumber: 0x80n, revokedAt: notBefore }], false],
  ] as const)('verifies a chain with CRL: %s', (_title, revoked, accepted) => {
    const { status, stderr } = spawnSync(
      'openssl',
      [
        ...['verify', '-x509_strict', '-crl_check', '-attime', String(Date.parse('2026-11-01') / 1000)],
        ...['-CAfile', file('root.pem', rootCertificate.pem), '-CRLfile', file('list.pem', crl(revoked).pem)],
        file('leaf.pem', strictLeaf().pem),
      ],
      { encoding: 'utf8' },
    )
    expect({ accepted: status === 0, stderr }).toMatchObject({ accepted })
    if (!accepted) expect(stderr).toContain('certificate revoked')
  })
})

/** What `-x509_strict` wants of a leaf: identifiers of both keys. */
function strictLeaf() {
  return createCertificate({
    ...rootFields,
    serialNumber: 0x80n,
    subject: { CN: 'leaf' },
    publicKey: leaf.publicKey,
    extensions: [
      basicConstraints({ ca: false }),
      keyUsage('digitalSignature'),
      subjectKeyIdentifier(leaf.publicKey),
      authorityKeyIdentifier(root.publicKey),
    ],
  })
}
