// SPDX-License-Identifier: Apache-2.0
/**
 * Certificate chains of Intel's SGX PKI, and signatures under them. All of it comes from the host or a peer. A certificate may do only
 * what its role allows, and its role follows from its name, its CA bit, its path length and its key usage together: a PCK
 * certificate chains to the same root as the TCB signer and must not pass for it. Dates and revocation are judged in
 * verify.ts, so that a verified chain says nothing about time and can be remembered.
 */
import { type KeyObject, verify } from 'node:crypto'
import { X509Error } from '../x509/der.ts'
import { readEcKey, readEcPoint } from '../x509/ec-key.ts'
import { memoize } from '../x509/memo.ts'
import { splitPem } from '../x509/pem.ts'
import {
  type Certificate,
  type KeyUsage,
  oids,
  parseCertificate,
  type RevocationList,
  refuseCritical,
  type SignedStructure,
} from '../x509/read.ts'
import { AttestationError, type AttestationErrorCode } from './error.ts'
import { pckOids, pkiNames } from './format.ts'

interface Role {
  readonly what: string
  /** The root is known by its fingerprint, so it may have any name. */
  readonly names: readonly string[] | undefined
  readonly ca: boolean
  readonly pathLength?: number
  readonly usage: readonly KeyUsage[]
  readonly sgxExtension: boolean
}

const root: Role = {
  what: 'the root CA',
  names: undefined,
  ca: true,
  pathLength: 1,
  usage: ['keyCertSign', 'crlSign'],
  sgxExtension: false,
}
const pckCa: Role = {
  what: 'the PCK CA',
  names: [pkiNames.processorCa, pkiNames.platformCa],
  ca: true,
  pathLength: 0,
  usage: ['keyCertSign', 'crlSign'],
  sgxExtension: false,
}
const pck: Role = {
  what: 'the PCK certificate',
  names: [pkiNames.pck],
  ca: false,
  usage: ['digitalSignature'],
  sgxExtension: true,
}
const tcbSigner: Role = {
  what: 'the TCB signer',
  names: [pkiNames.tcbSigner],
  ca: false,
  usage: ['digitalSignature'],
  sgxExtension: false,
}

/**
 * Every certificate is issued by the next, which has the right to; the last says that it issued itself. Whether it is trusted is not
 * said: that is by its bytes or not at all (RFC 5280, 6.1.1 d), so that its signature on itself would prove nothing.
 */
export interface Chain {
  readonly leaf: Certificate
  readonly leafKey: KeyObject
  readonly root: Certificate
  readonly certificates: readonly Certificate[]
}

const chainOf = (roles: readonly Role[]) =>
  memoize(
    256,
    (pem: string) => pem,
    (pem) => verifyChain(pem, roles),
  )

export const verifyPckChain = chainOf([pck, pckCa, root])
export const verifyPckCaChain = chainOf([pckCa, root])
export const verifyTcbSignerChain = chainOf([tcbSigner, root])

function verifyChain(pem: string, roles: readonly Role[]): Chain {
  const names = roles.map((role) => role.what).join(', ')
  const certificates = readChain(pem)
  if (certificates.length !== roles.length) {
    throw refusal('chain-malformed', `${roles.length} certificates (${names})`, `${certificates.length}`)
  }
  for (const [index, certificate] of certificates.entries()) {
    requireRole(certificate, roles[index]!)
    const issuer = certificates[index + 1]
    requireNamed(certificate, issuer ?? certificate)
    if (issuer) requireSigned({ certificate, issuer })
  }
  const leaf = certificates[0]!
  return { leaf, leafKey: publicKeyOf(leaf.publicKey), root: certificates.at(-1)!, certificates }
}

const readCertificate = memoize(256, (der: Buffer) => der.toString('latin1'), parseCertificate)

function readChain(pem: string): Certificate[] {
  try {
    return splitPem(pem).map(readCertificate)
  } catch (cause) {
    if (!(cause instanceof X509Error)) throw cause
    throw refusal('chain-malformed', 'certificates in PEM', cause.message, cause)
  }
}

function requireRole(certificate: Certificate, role: Role): void {
  const { subject, ca, pathLength, keyUsage, extensions } = certificate
  const wrong = (expected: string, got: string) =>
    refusal('certificate-role-wrong', `${role.what} to have ${expected}`, `${got} (${subject.commonName})`)
  if (role.names && !role.names.includes(subject.commonName ?? '')) {
    throw wrong(`the name ${role.names.join(' or ')}`, `"${subject.commonName}"`)
  }
  if (ca !== role.ca) throw wrong(`the CA bit ${role.ca ? 'set' : 'clear'}`, ca ? 'set' : 'clear')
  if (role.pathLength !== undefined && (pathLength ?? Number.POSITIVE_INFINITY) > role.pathLength) {
    throw wrong(`a path length of at most ${role.pathLength}`, `${pathLength}`)
  }
  const missing = role.usage.filter((usage) => !keyUsage?.has(usage))
  if (missing.length > 0) throw wrong(`key usage ${missing.join(', ')}`, [...(keyUsage ?? [])].join(', ') || 'none')
  if (!role.ca && keyUsage?.has('keyCertSign')) throw wrong('no right to sign certificates', 'keyCertSign')
  if (extensions.has(pckOids.extension) !== role.sgxExtension) {
    throw wrong(role.sgxExtension ? 'the SGX extension' : 'no SGX extension', role.sgxExtension ? 'none' : 'one')
  }
  try {
    refuseCritical(extensions, [oids.keyUsage, oids.basicConstraints, pckOids.extension])
  } catch (cause) {
    throw refusal('certificate-role-wrong', `${role.what} without unknown critical extensions`, 'one', cause)
  }
}

function requireNamed(certificate: Certificate, issuer: Certificate): void {
  if (certificate.issuer.der.equals(issuer.subject.der) && isKeyOf(issuer, certificate)) return
  const expected = `"${certificate.subject.commonName}" to be issued by the next certificate`
  throw refusal('chain-broken', expected, `"${issuer.subject.commonName}"`)
}

interface Issued {
  readonly certificate: Certificate
  readonly issuer: Certificate
}

const requireSigned = memoize<Issued, true>(
  1024,
  ({ certificate, issuer }) => `${certificate.fingerprint} ${issuer.fingerprint}`,
  ({ certificate, issuer }) => {
    if (isSignedBy(certificate, publicKeyOf(issuer.publicKey))) return true
    const expected = `a valid signature on "${certificate.subject.commonName}"`
    throw refusal('certificate-signature-invalid', expected, 'an invalid one')
  },
)

/** Signed by this CA with its own key: a list of the other PCK CA revokes nothing here. */
export function requireListOf(list: RevocationList, ca: Certificate): void {
  if (!list.issuer.der.equals(ca.subject.der) || !list.authorityKeyId || !isKeyOf(ca, list)) {
    throw refusal('crl-issuer-wrong', `the CRL of "${ca.subject.commonName}"`, `one of "${list.issuer.commonName}"`)
  }
  if (!isSignedBy(list, publicKeyOf(ca.publicKey))) {
    throw refusal('crl-signature-invalid', `a CRL signed by "${ca.subject.commonName}"`, 'an invalid signature')
  }
}

/** The key identifiers agree, where both sides state one (RFC 5280, 4.2.1.1). */
function isKeyOf(issuer: Certificate, issued: SignedStructure): boolean {
  return !issued.authorityKeyId || !issuer.subjectKeyId || issued.authorityKeyId.equals(issuer.subjectKeyId)
}

function isSignedBy({ signed, signature, signatureAlgorithm }: SignedStructure, key: KeyObject): boolean {
  if (signatureAlgorithm !== oids.ecdsaWithSha256) return false
  return verify('sha256', signed, { key, dsaEncoding: 'der' }, signature)
}

/** Raw r‖s, as quotes and signed JSON carry it. OpenSSL refuses r and s outside of 1 … n−1. */
export function isRawSignature(signed: Uint8Array, key: KeyObject, signature: Uint8Array): boolean {
  return verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signature)
}

const publicKeyOf = memoize(
  256,
  (spki: Buffer) => spki.toString('latin1'),
  (spki) => {
    const key = readEcKey(spki, ['P-256'])
    if (key) return key
    throw refusal('chain-malformed', 'a public key on P-256', `${spki.toString('hex', 0, 32)}…`)
  },
)

/** The attestation key of a quote, x‖y: on the curve, or refused. */
export const attestationKeyOf = memoize(
  1024,
  (point: Buffer) => point.toString('latin1'),
  (point) => {
    const key = readEcPoint(point, 'P-256')
    if (key) return key
    throw refusal('attestation-key-invalid', 'an attestation key on P-256', 'a point that is not on it')
  },
)

function refusal(code: AttestationErrorCode, expected: string, got: string, cause?: unknown): AttestationError {
  return new AttestationError(code, `Expected ${expected}, got ${got}.`, {
    hint: 'Fetch quote and collateral again; if it stays, the platform or its collateral service is not what it claims to be.',
    ...(cause === undefined ? {} : { cause }),
  })
}
