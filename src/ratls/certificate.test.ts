import { createHash, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ObjectIdentifier } from 'asn1js'
import { encode, Tagged } from 'cborg'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { intelQeVendorId } from '../attestation/format.ts'
import { CodedError } from '../errors.ts'
import { splitPem } from '../x509/pem.ts'
import { basicConstraints, createCertificate, type Extension, publicKeyInfo } from '../x509/write.ts'
import {
  createAttestedIdentity,
  evidenceOid,
  gramineOid,
  intelOid,
  parseCertificateEvidence,
  verifyValidity,
} from './certificate.ts'
import { encodeClaims, encodeEvidence } from './evidence.ts'

const now = Date.parse('2026-11-22T12:00:00Z')
const hourMs = 3_600_000

/** Laid out like a quote, with nothing true in it: reading a certificate does not verify one. */
function fakeQuote(reportData: Uint8Array, enclave = 1): Buffer {
  const quote = Buffer.alloc(1020)
  quote.writeUInt16LE(3, 0)
  quote.writeUInt16LE(2, 2)
  quote.write(intelQeVendorId, 12, 'hex')
  quote.writeUInt32LE(quote.length - 436, 432)
  quote.writeUInt16LE(5, 1014)
  quote.fill(enclave, 48 + 64, 48 + 96)
  quote.set(reportData, 48 + 320)
  return quote
}
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest()
const over = (bytes: Uint8Array) => Buffer.concat([sha256(bytes), Buffer.alloc(32)])

const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const keyInfo = publicKeyInfo(keys.publicKey)
const claims = encodeClaims(keyInfo)
const tcg = (quote = fakeQuote(over(claims)), itsClaims = claims): Extension => ({
  oid: evidenceOid,
  critical: false,
  value: encodeEvidence(quote, itsClaims),
})
const legacy = (oid: string, quote = fakeQuote(over(keyInfo))): Extension => ({ oid, critical: false, value: quote })

function certificate(extensions: readonly Extension[], publicKey: KeyObject = keys.publicKey): Buffer {
  return createCertificate({
    serialNumber: 1n,
    issuer: { CN: 'test' },
    subject: { CN: 'test' },
    notBefore: new Date(now),
    notAfter: new Date(now + hourMs),
    publicKey,
    extensions: [basicConstraints({ ca: false }, false), ...extensions],
    signingKey: keys.privateKey,
  }).der
}

function codeOf(der: Uint8Array): string {
  try {
    return parseCertificateEvidence(der).form
  } catch (error) {
    if (error instanceof CodedError) return error.code
    throw error
  }
}

const identity = await createAttestedIdentity({
  quote: async (reportData) => fakeQuote(reportData),
  now,
  lifetimeMs: 24 * hourMs,
})
const [ours] = splitPem(identity.certificate.trimEnd()) as [Buffer]

describe('our certificate', () => {
  test('is read back, with the evidence of the newer form', () => {
    const parsed = parseCertificateEvidence(ours)
    expect(parsed.form).toBe('tcg')
    expect(parsed.notAfter).toBe(now + 24 * hourMs)
    const publicKey = new X509Certificate(identity.certificate).publicKey
    expect(parsed.publicKeyHash).toEqual(sha256(publicKeyInfo(publicKey)))
    expect(publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1')
  })

  test('carries both quotes, over the claims and over the key', async () => {
    const seen: Buffer[] = []
    const identity = await createAttestedIdentity({
      quote: async (reportData) => {
        seen.push(Buffer.from(reportData))
        return fakeQuote(reportData)
      },
      now,
      lifetimeMs: hourMs,
    })
    const publicKey = publicKeyInfo(new X509Certificate(identity.certificate).publicKey)
    expect(seen).toEqual([over(encodeClaims(publicKey)), over(publicKey)])
  })

  test('has a key of its own at each start', async () => {
    const options = { quote: async (reportData: Uint8Array) => fakeQuote(reportData), now, lifetimeMs: hourMs }
    const [one, two] = await Promise.all([createAttestedIdentity(options), createAttestedIdentity(options)])
    expect(one.privateKey).not.toBe(two.privateKey)
    expect(one.certificate).not.toBe(two.certificate)
  })

  test('names the malformed OID of Gramine exactly as Gramine does', () => {
    // ra_tls.h: the OID with its own tag and length, inside another tag and length.
    expect(ours.includes(Buffer.from('060b06092a864886f84d8a3906', 'hex'))).toBe(true)
  })
})

describe('what is accepted', () => {
  test.each<[string, Extension[], string]>([
    ['the newer form alone', [tcg()], 'tcg'],
    ['Gramine before 2023', [legacy(gramineOid)], 'gramine'],
    ["Intel's SDK before 2.22", [legacy(intelOid)], 'intel'],
    ['Gramine now', [legacy(gramineOid), tcg()], 'tcg'],
    ["Intel's SDK now: one quote twice", [legacy(intelOid, fakeQuote(over(claims))), tcg()], 'tcg'],
    ['another extension', [tcg(), { oid: '2.23.133.5.4.2', critical: false, value: Buffer.from('x') }], 'tcg'],
  ])('%s', (_title, extensions, form) => {
    expect(codeOf(certificate(extensions))).toBe(form)
  })
})

describe('§6.1 no extension', () => {
  test('a certificate without evidence', () => {
    expect(codeOf(certificate([]))).toBe('ratls-evidence-absent')
  })
})

describe('§6.2 both OIDs disagree', () => {
  test.each<[string, Extension[], string]>([
    ['two enclaves', [legacy(gramineOid, fakeQuote(over(keyInfo), 2)), tcg()], 'ratls-evidence-disagrees'],
    [
      'the older for another key',
      [legacy(gramineOid, fakeQuote(over(Buffer.of(1)))), tcg()],
      'ratls-evidence-key-mismatch',
    ],
    [
      'the newer for another key',
      [legacy(gramineOid), tcg(fakeQuote(over(Buffer.of(1))))],
      'ratls-evidence-key-mismatch',
    ],
    ['two older forms', [legacy(gramineOid), legacy(intelOid)], 'ratls-evidence-disagrees'],
    [
      'the older cut short',
      [legacy(gramineOid, fakeQuote(over(keyInfo)).subarray(1)), tcg()],
      'quote-version-unsupported',
    ],
    ['the newer malformed', [legacy(gramineOid), { ...tcg(), value: Buffer.of(0) }], 'ratls-evidence-malformed'],
  ])('%s', (_title, extensions, code) => {
    expect(codeOf(certificate(extensions))).toBe(code)
  })
})

describe('§6.3 duplicate extension', () => {
  test.each([
    ['the newer form', tcg()],
    ['the older form', legacy(gramineOid)],
  ])('%s', (_title, extension) => {
    // Written by renaming a twin's OID: the writer refuses duplicates.
    const twin = `${extension.oid.slice(0, -1)}${extension.oid.endsWith('9') ? 8 : 7}`
    const der = certificate([extension, { ...extension, oid: twin }])
    const [from, to] = [oidBytes(twin), oidBytes(extension.oid)]
    const at = der.indexOf(from)
    expect(at).toBeGreaterThan(0)
    expect(codeOf(certificate([extension]))).not.toBe('certificate-malformed')
    der.set(to, at)
    expect(() => parseCertificateEvidence(der)).toThrow(/each extension once/)
    expect(codeOf(der)).toBe('certificate-malformed')
  })
})

test('§6.4 OID bytes hidden in another extension', () => {
  const hidden = certificate([tcg()])
  const start = hidden.indexOf(oidBytes(evidenceOid)) - 4
  const decoy: Extension = { oid: '1.2.3.4', critical: false, value: Uint8Array.from(hidden.subarray(start, -72)) }
  expect(Buffer.from(decoy.value).includes(oidBytes(evidenceOid))).toBe(true)
  expect(codeOf(certificate([decoy]))).toBe('ratls-evidence-absent')
})

describe("§6.5 other key's quote", () => {
  const another = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const anotherInfo = publicKeyInfo(another.publicKey)
  const anotherClaims = encodeClaims(anotherInfo)
  test.each<[string, Extension[]]>([
    ['copied whole', [tcg(fakeQuote(over(anotherClaims)), anotherClaims)]],
    ['copied with own claims', [tcg(fakeQuote(over(anotherClaims)))]],
    ['copied in the older form', [legacy(gramineOid, fakeQuote(over(anotherInfo)))]],
    ['older form over the claims, without claims', [legacy(gramineOid, fakeQuote(over(claims)))]],
    ['newer form over the key, not the claims', [tcg(fakeQuote(over(keyInfo)))]],
  ])('%s', (_title, extensions) => {
    expect(codeOf(certificate(extensions))).toBe('ratls-evidence-key-mismatch')
  })
})

describe('§6.6 REPORTDATA tail nonzero', () => {
  test.each<[string, Uint8Array, (reportData: Buffer) => Extension, string]>([
    ['newer form', claims, (reportData) => tcg(fakeQuote(reportData)), 'tcg'],
    ['older form', keyInfo, (reportData) => legacy(gramineOid, fakeQuote(reportData)), 'gramine'],
  ])('%s', (_title, hashed, extension, form) => {
    expect(codeOf(certificate([extension(over(hashed))]))).toBe(form)
    for (let index = 32; index < 64; index++) {
      const reportData = over(hashed)
      reportData[index] = 1
      expect(codeOf(certificate([extension(reportData)]))).toBe('ratls-evidence-key-mismatch')
    }
  })
})

describe('§6.7 to §6.10 in a certificate (evidence.test.ts has the forms)', () => {
  test.each<[string, Uint8Array, string]>([
    ['claims lack pubkey-hash', encode(new Map([['nonce', Buffer.alloc(32)]])), 'ratls-evidence-claim-missing'],
    ['trailing CBOR', Buffer.concat([claims, Buffer.of(0)]), 'ratls-evidence-malformed'],
    [
      'unknown hash',
      encode(new Map([['pubkey-hash', encode([2, sha256(keyInfo).subarray(16)])]])),
      'ratls-evidence-hash-unsupported',
    ],
  ])('%s', (_title, itsClaims, code) => {
    // Bound into REPORTDATA, so that only the claims themselves can be the reason.
    expect(codeOf(certificate([tcg(fakeQuote(over(itsClaims)), itsClaims)]))).toBe(code)
  })

  test('wrong tag', () => {
    const value = encode(new Tagged(60002, [fakeQuote(over(claims)), claims]))
    expect(codeOf(certificate([{ ...tcg(), value }]))).toBe('ratls-evidence-malformed')
  })
})

describe('§6.11 RSA or P-256K key', () => {
  test.each<[string, KeyObject]>([
    ['RSA', generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey],
    ['P-256K', generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey],
    ['P-521', generateKeyPairSync('ec', { namedCurve: 'P-521' }).publicKey],
    ['Ed25519', generateKeyPairSync('ed25519').publicKey],
  ])('%s', (_title, publicKey) => {
    const itsClaims = encodeClaims(publicKeyInfo(publicKey))
    expect(codeOf(certificate([tcg(fakeQuote(over(itsClaims)), itsClaims)], publicKey))).toBe(
      'ratls-certificate-key-unsupported',
    )
  })
})

describe('§6.12 expired or century-long certificate', () => {
  const day = { notBefore: now, notAfter: now + 24 * hourMs }
  const judge = (certificate: { notBefore: number; notAfter: number }, at: number) => () =>
    verifyValidity(certificate, { now: at, maxLifetimeMs: 24 * hourMs })

  test('current', () => {
    for (const at of [now, now + hourMs, day.notAfter]) expect(judge(day, at)).not.toThrow()
    const ours = parseCertificateEvidence(splitPem(identity.certificate.trimEnd())[0]!)
    expect(judge(ours, now - 4 * 60_000)).not.toThrow()
  })

  test.each([
    ['expired', day, day.notAfter + 1, 'ratls-certificate-expired'],
    ['not yet valid', day, now - 1, 'ratls-certificate-not-yet-valid'],
    ['a century', { notBefore: now, notAfter: now + 100 * 8766 * hourMs }, now, 'ratls-certificate-lifetime-too-long'],
    [
      "Gramine's default",
      { notBefore: Date.UTC(2001, 0), notAfter: Date.UTC(2030, 11, 31) },
      now,
      'ratls-certificate-lifetime-too-long',
    ],
  ])('%s', (_title, certificate, at, code) => {
    expect(judge(certificate, at)).toThrow(expect.objectContaining({ code }))
  })
})

describe('§6.13 bad self-signature', () => {
  test('another key signed', () => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const itsClaims = encodeClaims(publicKeyInfo(publicKey))
    expect(codeOf(certificate([tcg(fakeQuote(over(itsClaims)), itsClaims)], publicKey))).toBe(
      'ratls-certificate-signature-invalid',
    )
  })

  test('another name issued', () => {
    const { der } = createCertificate({
      serialNumber: 1n,
      issuer: { CN: 'someone else' },
      subject: { CN: 'test' },
      notBefore: new Date(now),
      notAfter: new Date(now + hourMs),
      publicKey: keys.publicKey,
      extensions: [tcg()],
      signingKey: keys.privateKey,
    })
    expect(codeOf(der)).toBe('ratls-certificate-signature-invalid')
  })
})

test('an unknown critical extension stops the reader', () => {
  expect(codeOf(certificate([tcg(), { oid: '1.2.3.4', critical: true, value: Buffer.of(5, 0) }]))).toBe(
    'certificate-malformed',
  )
})

test('each bit-flipped byte of our certificate is refused, without exception', () => {
  for (let offset = 0; offset < ours.length; offset++) {
    const flipped = Buffer.from(ours)
    flipped[offset] = flipped[offset]! ^ (1 << (offset % 8))
    expect(['tcg', 'gramine', 'intel'], `byte ${offset}`).not.toContain(codeOf(flipped))
  }
})

test('any bytes: a coded refusal, never another error', () => {
  const [start, end] = [ours.indexOf(oidBytes(gramineOid)) - 8, ours.length]
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void codeOf(bytes)),
    { numRuns: 1000 },
  )
  fc.assert(
    fc.property(fc.integer({ min: start, max: end }), fc.uint8Array({ maxLength: 8 }), (offset, bytes) => {
      const changed = Buffer.concat([ours.subarray(0, offset), bytes, ours.subarray(offset + bytes.length)])
      if (!changed.equals(ours)) expect(['tcg', 'gramine', 'intel']).not.toContain(codeOf(changed))
    }),
    { numRuns: 1000 },
  )
})

requires('attestation-vectors').describe('real certificates (interoperable RA-TLS test results)', () => {
  const directory = join(sharedDirectory, 'attestation-vectors/ccc-interop-ratls')
  const derOf = (name: string): Buffer =>
    Buffer.from(readFileSync(join(directory, name), 'utf8').replaceAll(/-----[A-Z ]+-----|\s/g, ''), 'base64')

  test.each([
    ['gramine-cert.pem', 'gramine-evidence-quote-debug.bin'],
    ['intel-sgxsdk-cert.pem', 'intel-sgxsdk-quote-debug.bin'],
    ['rats-tls-cert.pem', 'rats-tls-quote-debug.bin'],
  ])('%s holds its quote', (name, quote) => {
    const parsed = parseCertificateEvidence(derOf(name))
    expect(parsed.form).toBe('tcg')
    expect(parsed.quote.raw.equals(readFileSync(join(directory, quote)))).toBe(true)
  })

  test('OpenSSL takes the DER for the certificate of Intel that the quote contains: never ask it', () => {
    expect(new X509Certificate(derOf('gramine-cert.pem')).subject).toContain('Intel SGX PCK')
  })
})

/** Tag, length and content. */
function oidBytes(value: string): Buffer {
  return Buffer.from(new ObjectIdentifier({ value }).toBER())
}
