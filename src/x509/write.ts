// SPDX-License-Identifier: Apache-2.0
/**
 * Writes X.509 v3 certificates and v2 CRLs (RFC 5280), ECDSA with SHA-256 over P-256: the RA-TLS certificates of this
 * enclave, the launcher's pinned ones and the whole PKI of the simulated platform. ASN.1 by asn1js, signing by node:crypto.
 * What goes in comes from our own code, so a wrong argument is a bug (assert), not a refusal.
 */
import assert from 'node:assert/strict'
import { createHash, createPublicKey, type KeyObject, sign } from 'node:crypto'
import {
  type BaseBlock,
  BitString,
  Boolean as BooleanBlock,
  Constructed,
  Enumerated,
  fromBER,
  GeneralizedTime,
  Integer,
  ObjectIdentifier,
  OctetString,
  Primitive,
  PrintableString,
  Sequence,
  Set as SetBlock,
  UTCTime,
  Utf8String,
} from 'asn1js'

/** A distinguished name: one attribute an RDN, in the order written. */
export type Name = Readonly<Partial<Record<keyof typeof nameAttributes, string>>>

/** `value` is the DER inside the extension's OCTET STRING; bytes that are no DER (Gramine's legacy quote) pass too. */
export interface Extension {
  readonly oid: string
  readonly critical: boolean
  readonly value: Uint8Array
}

export interface CertificateFields {
  readonly serialNumber: bigint
  readonly issuer: Name
  readonly subject: Name
  readonly notBefore: Date
  readonly notAfter: Date
  readonly publicKey: KeyObject
  /** In this order; see the makers below. */
  readonly extensions: readonly Extension[]
  /** The issuer's private key, P-256. */
  readonly signingKey: KeyObject
}

export interface RevokedCertificate {
  readonly serialNumber: bigint
  readonly revokedAt: Date
  readonly reason?: keyof typeof crlReasons
}

export interface CrlFields {
  readonly issuer: Name
  readonly number: bigint
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  readonly revoked: readonly RevokedCertificate[]
  /** The issuer's private key, P-256; the AuthorityKeyIdentifier is derived from it. */
  readonly signingKey: KeyObject
}

export interface Encoded {
  readonly der: Buffer
  readonly pem: string
}

const nameAttributes = { CN: '2.5.4.3', C: '2.5.4.6', L: '2.5.4.7', ST: '2.5.4.8', O: '2.5.4.10', OU: '2.5.4.11' }
/** Bit positions of RFC 5280 §4.2.1.3. */
const keyUsages = { digitalSignature: 0, nonRepudiation: 1, keyEncipherment: 2, keyCertSign: 5, cRLSign: 6 }
/** RFC 5280 §5.3.1. */
const crlReasons = { unspecified: 0, keyCompromise: 1, cACompromise: 2, superseded: 4, cessationOfOperation: 5 }
const ecdsaWithSha256 = '1.2.840.10045.4.3.2'

export function createCertificate(fields: CertificateFields): Encoded {
  assert(fields.notBefore <= fields.notAfter, 'a certificate must not end before it begins')
  const oids = fields.extensions.map(({ oid }) => oid)
  assert.equal(new Set(oids).size, oids.length, 'an extension may occur once')
  const toBeSigned = sequence(
    new Constructed({ idBlock: { tagClass: 3, tagNumber: 0 }, value: [new Integer({ value: 2 })] }),
    serialNumber(fields.serialNumber),
    signatureAlgorithm(),
    distinguishedName(fields.issuer),
    sequence(time(fields.notBefore), time(fields.notAfter)),
    distinguishedName(fields.subject),
    raw(publicKeyInfo(fields.publicKey)),
    ...extensions(3, fields.extensions),
  )
  return signed(toBeSigned, fields.signingKey, 'CERTIFICATE')
}

export function createCrl(fields: CrlFields): Encoded {
  assert(fields.thisUpdate <= fields.nextUpdate, 'a CRL must not end before it begins')
  // RFC 5280 §5.1.2.6: no list at all when nothing is revoked.
  const revoked = fields.revoked.length > 0 ? [sequence(...fields.revoked.map(revokedEntry))] : []
  const toBeSigned = sequence(
    new Integer({ value: 1 }),
    signatureAlgorithm(),
    distinguishedName(fields.issuer),
    time(fields.thisUpdate),
    time(fields.nextUpdate),
    ...revoked,
    ...extensions(0, [
      { oid: '2.5.29.20', critical: false, value: der(serialNumber(fields.number)) },
      authorityKeyIdentifier(createPublicKey(fields.signingKey)),
    ]),
  )
  return signed(toBeSigned, fields.signingKey, 'X509 CRL')
}

export function basicConstraints(constraints: { ca: boolean; pathLength?: number }, critical = true): Extension {
  const { ca, pathLength } = constraints
  assert(ca || pathLength === undefined, 'a path length is for CAs only')
  const value = sequence(
    ...(ca ? [new BooleanBlock({ value: true })] : []),
    ...(pathLength === undefined ? [] : [new Integer({ value: pathLength })]),
  )
  return { oid: '2.5.29.19', critical, value: der(value) }
}

export function keyUsage(...usages: readonly (keyof typeof keyUsages)[]): Extension {
  const bits = usages.map((usage) => keyUsages[usage])
  const octet = bits.reduce((octet, bit) => octet | (0x80 >> bit), 0)
  // DER: named bit lists lose their trailing zeros.
  const bitString = new BitString({ valueHex: Uint8Array.of(octet).buffer, unusedBits: 7 - Math.max(...bits) })
  return { oid: '2.5.29.15', critical: true, value: der(bitString) }
}

export function subjectKeyIdentifier(publicKey: KeyObject): Extension {
  return { oid: '2.5.29.14', critical: false, value: der(new OctetString({ valueHex: keyIdentifier(publicKey) })) }
}

export function authorityKeyIdentifier(issuerPublicKey: KeyObject): Extension {
  const identifier = new Primitive({
    idBlock: { tagClass: 3, tagNumber: 0 },
    valueHex: keyIdentifier(issuerPublicKey),
  })
  return { oid: '2.5.29.35', critical: false, value: der(sequence(identifier)) }
}

export function crlDistributionPoint(url: string): Extension {
  assert.match(url, /^[\x21-\x7e]+$/, 'a URL is printable ASCII')
  const tagged = (tagNumber: number, value: BaseBlock) =>
    new Constructed({ idBlock: { tagClass: 3, tagNumber }, value: [value] })
  const uri = new Primitive({ idBlock: { tagClass: 3, tagNumber: 6 }, valueHex: exactBuffer(Buffer.from(url)) })
  return { oid: '2.5.29.31', critical: false, value: der(sequence(sequence(tagged(0, tagged(0, uri))))) }
}

/** SubjectPublicKeyInfo: what certificates carry, and what RA-TLS hashes. */
export function publicKeyInfo(publicKey: KeyObject): Buffer {
  assert.equal(publicKey.type, 'public')
  return publicKey.export({ type: 'spki', format: 'der' })
}

/** PEM as RFC 7468 has it: lines of 64, one final newline. */
export function pem(label: 'CERTIFICATE' | 'X509 CRL', bytes: Uint8Array): string {
  const lines = Buffer.from(bytes)
    .toString('base64')
    .match(/.{1,64}/g)
  return [`-----BEGIN ${label}-----`, ...(lines ?? []), `-----END ${label}-----`, ''].join('\n')
}

function signed(toBeSigned: Sequence, signingKey: KeyObject, label: 'CERTIFICATE' | 'X509 CRL'): Encoded {
  const curve = signingKey.asymmetricKeyDetails?.namedCurve
  assert(signingKey.type === 'private' && curve === 'prime256v1', `sign with a private P-256 key, not ${curve}`)
  const signature = sign('sha256', der(toBeSigned), signingKey)
  const whole = der(sequence(toBeSigned, signatureAlgorithm(), new BitString({ valueHex: exactBuffer(signature) })))
  return { der: whole, pem: pem(label, whole) }
}

/** RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050; whole seconds. */
function time(date: Date): BaseBlock {
  assert(!Number.isNaN(date.getTime()), 'a date must be valid')
  const year = date.getUTCFullYear()
  return year >= 1950 && year < 2050
    ? new UTCTime({ valueDate: date })
    : new GeneralizedTime({ valueDate: new Date(Math.floor(date.getTime() / 1000) * 1000) })
}

function distinguishedName(name: Name): Sequence {
  const names = Object.entries(name) as [keyof typeof nameAttributes, string][]
  return sequence(
    ...names.map(([attribute, value]) => {
      // RFC 5280 appendix A: a country is two PrintableString characters.
      const text = attribute === 'C' ? new PrintableString({ value }) : new Utf8String({ value })
      const pair = sequence(new ObjectIdentifier({ value: nameAttributes[attribute] }), text)
      return new SetBlock({ value: [pair] })
    }),
  )
}

function extensions(tagNumber: number, list: readonly Extension[]): BaseBlock[] {
  if (list.length === 0) return []
  return [new Constructed({ idBlock: { tagClass: 3, tagNumber }, value: [sequence(...list.map(extension))] })]
}

function extension({ oid, critical, value }: Extension): Sequence {
  return sequence(
    new ObjectIdentifier({ value: oid }),
    ...(critical ? [new BooleanBlock({ value: true })] : []),
    new OctetString({ valueHex: exactBuffer(value) }),
  )
}

function revokedEntry({ serialNumber: serial, revokedAt, reason }: RevokedCertificate): Sequence {
  const reasonCode =
    reason === undefined
      ? []
      : [
          sequence(
            extension({
              oid: '2.5.29.21',
              critical: false,
              value: der(new Enumerated({ value: crlReasons[reason] })),
            }),
          ),
        ]
  return sequence(serialNumber(serial), time(revokedAt), ...reasonCode)
}

function serialNumber(value: bigint): Integer {
  assert(value >= 0n && value < 1n << 159n, 'a serial number is at most 20 octets and not negative')
  const hex = value.toString(16)
  const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex')
  // A leading one bit would make the INTEGER negative.
  return new Integer({ valueHex: exactBuffer(bytes[0]! >= 0x80 ? Buffer.concat([Buffer.alloc(1), bytes]) : bytes) })
}

/** RFC 5280 §4.2.1.2 (1): SHA-1 over the public key's bits, a name and not a security claim. */
function keyIdentifier(publicKey: KeyObject): ArrayBuffer {
  const { result } = fromBER(exactBuffer(publicKeyInfo(publicKey)))
  assert(result instanceof Sequence)
  const bits = result.valueBlock.value[1]
  assert(bits instanceof BitString)
  return exactBuffer(createHash('sha1').update(bits.valueBlock.valueHexView).digest())
}

function signatureAlgorithm(): Sequence {
  return sequence(new ObjectIdentifier({ value: ecdsaWithSha256 }))
}

function sequence(...value: BaseBlock[]): Sequence {
  return new Sequence({ value })
}

function raw(encoded: Buffer): BaseBlock {
  const { offset, result } = fromBER(exactBuffer(encoded))
  assert.equal(offset, encoded.length)
  return result
}

function der(block: BaseBlock): Buffer {
  return Buffer.from(block.toBER())
}

/** asn1js takes whole ArrayBuffers; a Buffer is mostly a window into a pool. */
function exactBuffer(bytes: Uint8Array): ArrayBuffer {
  return Uint8Array.from(bytes).buffer
}
