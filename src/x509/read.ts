// SPDX-License-Identifier: Apache-2.0
/**
 * X.509 certificates and certificate revocation lists (RFC 5280), bytes → value. Nothing here is verified: every byte may come
 * from the host or a peer. What RFC 5280 forbids is refused (an extension twice, two differing signature algorithms,
 * a version that does not fit), because a structure that two readers understand differently is a way around verification.
 */
import { createHash } from 'node:crypto'
import {
  type Der,
  derBitOctets,
  derBoolean,
  derChildren,
  derInteger,
  derNamedBits,
  derOctets,
  derOid,
  derSmallInteger,
  derTags,
  derTime,
  expectTag,
  readDer,
  X509Error,
} from './der.ts'

export const oids = {
  commonName: '2.5.4.3',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  basicConstraints: '2.5.29.19',
  crlNumber: '2.5.29.20',
  reasonCode: '2.5.29.21',
  crlDistributionPoints: '2.5.29.31',
  authorityKeyIdentifier: '2.5.29.35',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
} as const

/** In the order of the bits (RFC 5280, 4.2.1.3). */
export const keyUsages = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'crlSign',
  'encipherOnly',
  'decipherOnly',
] as const
export type KeyUsage = (typeof keyUsages)[number]

export interface Name {
  /** Two names are the same when these are: we never compare after folding case or spaces. */
  readonly der: Buffer
  readonly commonName: string | undefined
}

export interface Extension {
  readonly critical: boolean
  readonly value: Buffer
}

/** What a certificate and a CRL have in common: `signature` is over `signed`. */
export interface SignedStructure {
  readonly signed: Buffer
  readonly signature: Buffer
  /** OID; its parameters are absent, or NULL. */
  readonly signatureAlgorithm: string
  readonly issuer: Name
  readonly extensions: ReadonlyMap<string, Extension>
  readonly authorityKeyId: Buffer | undefined
}

export interface Certificate extends SignedStructure {
  readonly der: Buffer
  /** SHA-256 over the DER, in hex. */
  readonly fingerprint: string
  readonly serial: string
  readonly subject: Name
  readonly notBefore: number
  readonly notAfter: number
  /** SubjectPublicKeyInfo, whole. */
  readonly publicKey: Buffer
  readonly subjectKeyId: Buffer | undefined
  readonly keyUsage: ReadonlySet<KeyUsage> | undefined
  readonly ca: boolean
  readonly pathLength: number | undefined
}

export interface RevocationList extends SignedStructure {
  readonly thisUpdate: number
  readonly nextUpdate: number
  readonly number: string
  /** Serial number in hex → when it was revoked. */
  readonly revoked: ReadonlyMap<string, number>
}

export function parseCertificate(der: Uint8Array): Certificate {
  return because('certificate-malformed', 'a certificate', () => {
    const { signed, fields, signature, signatureAlgorithm } = readSigned(der)
    const [version, serial, algorithm, issuer, validity, subject, publicKey, extensions, ...rest] = fields
    if (!extensions || rest.length > 0) throw malformed('8 fields: version 3 with extensions', `${fields.length}`)
    const versionNumber = derChildren(expectTag(version!, 0xa0))
    if (versionNumber.length !== 1 || derSmallInteger(versionNumber[0]!, 2) !== 2)
      throw malformed('version 3', 'another')
    requireSame(algorithm!, signatureAlgorithm)
    const [notBefore, notAfter, ...more] = derChildren(validity!, derTags.sequence)
    if (!notAfter || more.length > 0) throw malformed('two times of validity', 'another number')
    const byOid = readExtensions(extensions, 0xa3)
    const constraints = readBasicConstraints(byOid)
    return {
      der: signed.parent,
      fingerprint: createHash('sha256').update(der).digest('hex'),
      signed: signed.raw,
      signature,
      signatureAlgorithm: readAlgorithm(signatureAlgorithm),
      serial: derInteger(serial!).toString('hex'),
      issuer: readName(issuer!),
      subject: readName(subject!),
      notBefore: derTime(notBefore!),
      notAfter: derTime(notAfter),
      publicKey: expectTag(publicKey!, derTags.sequence).raw,
      extensions: byOid,
      authorityKeyId: readAuthorityKeyId(byOid),
      subjectKeyId: readInside(byOid, oids.subjectKeyIdentifier, derOctets),
      keyUsage: readInside(byOid, oids.keyUsage, readKeyUsage),
      ...constraints,
    }
  })
}

/** Version 2, whole and direct: a delta or an indirect list would need more care than Intel's PKI calls for. */
export function parseRevocationList(der: Uint8Array): RevocationList {
  return because('crl-malformed', 'a certificate revocation list', () => {
    const { signed, fields, signature, signatureAlgorithm } = readSigned(der)
    const [version, algorithm, issuer, thisUpdate, nextUpdate, ...optional] = fields
    if (!nextUpdate) throw malformed('at least 5 fields', `${fields.length}`)
    if (derSmallInteger(version!, 1) !== 1) throw malformed('version 2', 'another')
    requireSame(algorithm!, signatureAlgorithm)
    const entries = optional[0]?.tag === derTags.sequence ? optional.shift() : undefined
    const extensions = optional.shift()
    if (!extensions || optional.length > 0) throw malformed('extensions as the last field', 'another')
    const byOid = readExtensions(extensions, 0xa0)
    refuseCritical(byOid, [oids.crlNumber, oids.authorityKeyIdentifier])
    const number = readInside(byOid, oids.crlNumber, (inside) => derInteger(inside).toString('hex'))
    if (number === undefined) throw malformed('a CRL number', 'none')
    return {
      signed: signed.raw,
      signature,
      signatureAlgorithm: readAlgorithm(signatureAlgorithm),
      issuer: readName(issuer!),
      thisUpdate: derTime(thisUpdate!),
      nextUpdate: derTime(nextUpdate),
      number,
      extensions: byOid,
      authorityKeyId: readAuthorityKeyId(byOid),
      revoked: entries ? readRevocations(entries) : new Map(),
    }
  })
}

/** SEQUENCE { to be signed, algorithm, signature }. */
function readSigned(der: Uint8Array) {
  const outer = readDer(der)
  const [toBeSigned, signatureAlgorithm, signature, ...rest] = derChildren(outer, derTags.sequence)
  if (!toBeSigned || !signatureAlgorithm || !signature || rest.length > 0) {
    throw malformed('a signed body, an algorithm and a signature', 'another number of elements')
  }
  return {
    signed: { raw: toBeSigned.raw, parent: outer.raw },
    fields: derChildren(toBeSigned, derTags.sequence),
    signatureAlgorithm,
    signature: derBitOctets(signature),
  }
}

/** The algorithm is stated inside and outside of what is signed: only the inner one is protected. */
function requireSame(inner: Der, outer: Der): void {
  if (!inner.raw.equals(outer.raw)) throw malformed('the same signature algorithm twice', 'two different ones')
}

function readAlgorithm(element: Der): string {
  const [oid, parameters, ...rest] = derChildren(element, derTags.sequence)
  const isNull = parameters?.raw.equals(Buffer.from([5, 0])) ?? true
  if (!oid || !isNull || rest.length > 0)
    throw malformed('an algorithm without parameters', element.raw.toString('hex'))
  return derOid(oid)
}

function readName(element: Der): Name {
  let commonName: string | undefined
  for (const set of derChildren(element, derTags.sequence)) {
    for (const attribute of derChildren(set, derTags.set)) {
      const [type, value, ...rest] = derChildren(attribute, derTags.sequence)
      if (!type || !value || rest.length > 0) throw malformed('a name of type and value', 'another number of elements')
      if (derOid(type) !== oids.commonName) continue
      if (commonName !== undefined) throw malformed('one common name', 'several')
      if (value.tag !== derTags.utf8String && value.tag !== derTags.printableString) {
        throw malformed('a common name in UTF8String or PrintableString', `tag 0x${value.tag.toString(16)}`)
      }
      commonName = value.content.toString('utf8')
    }
  }
  return { der: element.raw, commonName }
}

function readExtensions(explicit: Der, tag: number): Map<string, Extension> {
  const [list, ...rest] = derChildren(expectTag(explicit, tag))
  if (!list || rest.length > 0) throw malformed('one list of extensions', 'another number')
  const byOid = new Map<string, Extension>()
  for (const extension of derChildren(list, derTags.sequence)) {
    const parts = derChildren(extension, derTags.sequence)
    const critical = parts.length === 3 && derBoolean(parts[1]!)
    // DER leaves out a default, so an encoded FALSE is as wrong as a fourth part.
    if (parts.length < 2 || parts.length > 3 || (parts.length === 3 && !critical)) {
      throw malformed('an extension of OID, criticality and value', extension.raw.subarray(0, 24).toString('hex'))
    }
    const oid = derOid(parts[0]!)
    if (byOid.has(oid)) throw malformed('each extension once', `${oid} twice`)
    byOid.set(oid, { critical, value: derOctets(parts.at(-1)!) })
  }
  return byOid
}

function readInside<T>(byOid: Map<string, Extension>, oid: string, read: (inside: Der) => T): T | undefined {
  const extension = byOid.get(oid)
  return extension && read(readDer(extension.value))
}

function readBasicConstraints(byOid: Map<string, Extension>): { ca: boolean; pathLength: number | undefined } {
  const inside = readInside(byOid, oids.basicConstraints, (it) => derChildren(it, derTags.sequence)) ?? []
  if (inside.length === 0) return { ca: false, pathLength: undefined }
  const ca = derBoolean(inside[0]!)
  if (!ca || inside.length > 2) throw malformed('basic constraints in DER', 'a default or a third element')
  return { ca, pathLength: inside[1] && derSmallInteger(inside[1], 255) }
}

function readKeyUsage(element: Der): Set<KeyUsage> {
  const bits = derNamedBits(element)
  if (bits.length > keyUsages.length) throw malformed('at most 9 bits of key usage', `${bits.length}`)
  return new Set(keyUsages.filter((_, index) => bits[index] === 1))
}

function readAuthorityKeyId(byOid: Map<string, Extension>): Buffer | undefined {
  const parts = readInside(byOid, oids.authorityKeyIdentifier, (it) => derChildren(it, derTags.sequence))
  return parts?.find((part) => part.tag === 0x80)?.content
}

function readRevocations(list: Der): Map<string, number> {
  const revoked = new Map<string, number>()
  let accepted: Buffer | undefined
  for (const entry of derChildren(list)) {
    const [serial, date, extensions, ...rest] = derChildren(entry, derTags.sequence)
    if (!serial || !date || rest.length > 0) throw malformed('a serial number and a date', 'another number of elements')
    // Thousands of entries mostly give the same reason: what was read once need not be read again.
    if (extensions && !accepted?.equals(extensions.raw)) {
      requireKnownEntryExtensions(extensions)
      accepted = extensions.raw
    }
    revoked.set(derInteger(serial).toString('hex'), derTime(date))
  }
  return revoked
}

/** Unlike those of the list they are not wrapped in a tag of their own. */
function requireKnownEntryExtensions(extensions: Der): void {
  for (const extension of derChildren(extensions, derTags.sequence)) {
    const [oid, critical, ...more] = derChildren(extension, derTags.sequence)
    if (more.length > 0 && derBoolean(critical!) && derOid(oid!) !== oids.reasonCode) {
      throw malformed('no critical extension but the reason', derOid(oid!))
    }
  }
}

/** A critical extension that the reader does not know must stop it (RFC 5280, 4.2). */
export function refuseCritical(extensions: ReadonlyMap<string, Extension>, known: readonly string[]): void {
  for (const [oid, { critical }] of extensions) {
    if (critical && !known.includes(oid)) throw malformed(`no critical extension but ${known.join(', ')}`, oid)
  }
}

function malformed(expected: string, got: string): X509Error {
  return new X509Error('certificate-malformed', `Expected ${expected}, got ${got}.`, { hint })
}
const hint =
  'The structure does not follow RFC 5280: fetch it again from its source, or look at it with openssl asn1parse.'

function because<T>(code: 'certificate-malformed' | 'crl-malformed', what: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof X509Error)) throw cause
    throw new X509Error(code, `Expected ${what}: ${cause.message}`, { hint, cause })
  }
}
