// SPDX-License-Identifier: Apache-2.0
/**
 * Verification of SGX quotes, in the order of the protocol (Intel SGX DCAP, "Quote Verification"). Quote and collateral are
 * hostile until each step has passed; the only thing taken on trust is the fingerprint of the root certificate. Collateral is
 * verified once for many quotes (`trustCollateral`), then each quote against it (`verifyQuote`). Time is an argument.
 */
import { createHash, type KeyObject } from 'node:crypto'
import { X509Error } from '../x509/der.ts'
import { memoize } from '../x509/memo.ts'
import { type Certificate, parseRevocationList, type RevocationList } from '../x509/read.ts'
import {
  attestationKeyOf,
  type Chain,
  isRawSignature,
  requireListOf,
  verifyPckCaChain,
  verifyPckChain,
  verifyTcbSignerChain,
} from './chain.ts'
import type { QuoteCollateral } from './collateral.ts'
import { AttestationError, type AttestationErrorCode } from './error.ts'
import { attributesOf, type EvidenceFacts, measurementsOf, platformOf } from './evidence.ts'
import { attributeFlags, reportFields } from './format.ts'
import { type PckIdentity, parsePckIdentity } from './pck.ts'
import { type EnclaveReport, parseQuote, type Quote } from './quote.ts'
import {
  convergeStatus,
  matchPlatformLevel,
  matchQeLevel,
  parseQeIdentity,
  parseTcbInfo,
  type QeIdentity,
  type TcbInfo,
} from './tcb.ts'
import { type ValidityWindow, validityProblems } from './validity.ts'

declare const trustedBrand: unique symbol
declare const evidenceBrand: unique symbol

/** Collateral whose signatures, chains and revocations were verified under one root. */
export interface TrustedCollateral {
  readonly [trustedBrand]: true
  readonly rootFingerprint: string
  readonly tcbInfo: TcbInfo
  readonly qeIdentity: QeIdentity
  readonly rootCrl: RevocationList
  readonly pckCrl: RevocationList
  readonly pckCa: Certificate
  /** For quotes that only name their PCK certificate. */
  readonly pckChainPem: string | undefined
  readonly validity: readonly ValidityWindow[]
}

/** Facts that this file proved. Made nowhere else: authorize() asks `isProven`, so that a copy with other facts is worth nothing. */
export type Evidence = EvidenceFacts & { readonly [evidenceBrand]: true }

const proven = new WeakSet<EvidenceFacts>()
export const isProven = (facts: EvidenceFacts): facts is Evidence => proven.has(facts)

type TimelessFacts = Omit<EvidenceFacts, 'verifiedAt'>
/** What a quote was last found to prove, and by which collateral. Gone with the quote. */
const examined = new WeakMap<Quote, { readonly collateral: TrustedCollateral; readonly facts: TimelessFacts }>()

/** Everything about collateral that does not depend on a quote or on the time. */
export function trustCollateral(collateral: QuoteCollateral, rootFingerprint: string): TrustedCollateral {
  const ca = verifyPckCaChain(collateral.pck_crl_issuer_chain)
  const tcbSigner = verifyTcbSignerChain(collateral.tcb_info_issuer_chain)
  const qeSigner = verifyTcbSignerChain(collateral.qe_identity_issuer_chain)
  for (const chain of [ca, tcbSigner, qeSigner]) requireRoot(chain, rootFingerprint)

  const rootCrl = readCrl(collateral.root_ca_crl, 'the CRL of the root CA')
  const pckCrl = readCrl(collateral.pck_crl, 'the CRL of the PCK CA')
  requireListOf(rootCrl, ca.root)
  requireListOf(pckCrl, ca.leaf)
  for (const chain of [ca, tcbSigner, qeSigner]) requireNotRevoked(chain.leaf, rootCrl)

  requireSigned(collateral.tcb_info, collateral.tcb_info_signature, tcbSigner.leafKey, 'tcb-info-signature-invalid')
  requireSigned(
    collateral.qe_identity,
    collateral.qe_identity_signature,
    qeSigner.leafKey,
    'qe-identity-signature-invalid',
  )
  const tcbInfo = readTcbInfo(collateral.tcb_info)
  const qeIdentity = readQeIdentity(collateral.qe_identity)
  return {
    rootFingerprint,
    tcbInfo,
    qeIdentity,
    rootCrl,
    pckCrl,
    pckCa: ca.leaf,
    pckChainPem: collateral.pck_certificate_chain,
    validity: [...new Set([ca, tcbSigner, qeSigner].flatMap((chain) => chain.certificates))]
      .map(windowOfCertificate)
      .concat(
        { what: 'the CRL of the root CA', kind: 'crl', notBefore: rootCrl.thisUpdate, notAfter: rootCrl.nextUpdate },
        { what: 'the CRL of the PCK CA', kind: 'crl', notBefore: pckCrl.thisUpdate, notAfter: pckCrl.nextUpdate },
        { what: 'the TCB info', kind: 'tcb-info', notBefore: tcbInfo.issueDate, notAfter: tcbInfo.nextUpdate },
        {
          what: 'the QE identity',
          kind: 'qe-identity',
          notBefore: qeIdentity.issueDate,
          notAfter: qeIdentity.nextUpdate,
        },
      ),
  } as Omit<TrustedCollateral, typeof trustedBrand> as TrustedCollateral
}

/** The evidence in a quote, if all that it rests on is valid at `now`; `graceMs` extends CRLs, TCB info and QE identity. */
export function verifyQuote(
  bytes: Uint8Array,
  collateral: TrustedCollateral,
  { now, graceMs = 0 }: { readonly now: number; readonly graceMs?: number },
): Evidence {
  const evidence = examineQuote(bytes, collateral, now)
  const [problem] = validityProblems(evidence.validity, now, graceMs)
  if (problem) throw new AttestationError(problem.code, problem.message, { hint: problem.hint })
  return evidence
}

/** As `verifyQuote`, but dates are left to authorize(), which lists them among all that a policy does not accept. */
export function examineQuote(bytes: Uint8Array, collateral: TrustedCollateral, now: number): Evidence {
  return asProven(factsIn(parseQuote(bytes), collateral), now)
}

/** The same for the quote of a peer that comes back: what it proved under this very collateral it proves again. */
export function reexamineQuote(quote: Quote, collateral: TrustedCollateral, now: number): Evidence {
  const known = examined.get(quote)
  if (known?.collateral === collateral) return asProven(known.facts, now)
  const facts = factsIn(quote, collateral)
  examined.set(quote, { collateral, facts })
  return asProven(facts, now)
}

function asProven(timeless: TimelessFacts, now: number): Evidence {
  const facts: EvidenceFacts = Object.freeze({ ...timeless, verifiedAt: now })
  proven.add(facts)
  return facts as Evidence
}

function factsIn(quote: Quote, collateral: TrustedCollateral): TimelessFacts {
  // The PCK certificate chains to the root that we trust, and nobody in the chain was revoked.
  const chain = pckChainOf(quote, collateral)
  const [pckCertificate, pckCa] = chain.certificates as [Certificate, Certificate]
  requireRoot(chain, collateral.rootFingerprint)
  if (pckCa.fingerprint !== collateral.pckCa.fingerprint) requireListOf(collateral.pckCrl, pckCa)
  requireNotRevoked(pckCa, collateral.rootCrl)
  requireNotRevoked(pckCertificate, collateral.pckCrl)
  const pck = readPckIdentity(pckCertificate)
  requireNamed(quote, pck)

  // The platform certifies its quoting enclave, which is Intel's and vouches for the attestation key, which signs the quote.
  const attestationKey = attestationKeyOf(quote.attestationKey)
  requireQeReport(quote, chain)
  requireQeIdentity(quote.qeReport, collateral.qeIdentity)
  if (!isRawSignature(quote.signed, attestationKey, quote.signature)) {
    throw refusal('quote-signature-invalid', 'a quote signed by its attestation key', 'an invalid signature')
  }

  // The collateral speaks of this platform.
  const { tcbInfo, qeIdentity } = collateral
  if (pck.fmspc !== tcbInfo.fmspc) throw refusal('fmspc-mismatch', `TCB info for FMSPC ${pck.fmspc}`, tcbInfo.fmspc)
  if (pck.pceId !== tcbInfo.pceId) throw refusal('pce-id-mismatch', `TCB info for PCEID ${pck.pceId}`, tcbInfo.pceId)

  const platformLevel = matchPlatformLevel(pck, tcbInfo)
  const qeLevel = matchQeLevel(quote.qeReport, qeIdentity)
  const own = pckCa.fingerprint === collateral.pckCa.fingerprint ? [pckCertificate] : [pckCertificate, pckCa]
  const validity = Object.freeze([...own.map(windowOfCertificate), ...collateral.validity])
  return {
    measurements: Object.freeze(measurementsOf(quote.report)),
    attributes: Object.freeze(attributesOf(quote.report)),
    reportData: quote.report.reportData.toString('hex'),
    platform: Object.freeze(platformOf(pck, pckCa.subject.commonName)),
    tcbStatus: convergeStatus(platformLevel.status, qeLevel.status),
    platformStatus: platformLevel.status,
    qeStatus: qeLevel.status,
    platformTcbDate: platformLevel.date,
    qeTcbDate: qeLevel.date,
    advisories: Object.freeze([...new Set([...platformLevel.advisories, ...qeLevel.advisories])]),
    tcbEvaluationNumber: Math.min(tcbInfo.evaluationNumber, qeIdentity.evaluationNumber),
    rootFingerprint: collateral.rootFingerprint,
    validity,
    latestIssue: Math.max(...validity.map((window) => window.notBefore)),
    earliestExpiry: Math.min(...validity.map((window) => window.notAfter)),
  }
}

function pckChainOf(quote: Quote, collateral: TrustedCollateral): Chain {
  if (quote.certification.type === 'pck-chain') {
    const { pem } = quote.certification
    return verifyPckChain(pem)
  }
  if (collateral.pckChainPem !== undefined) return verifyPckChain(collateral.pckChainPem)
  throw refusal('pck-missing', 'the PCK certificate in the quote or in the collateral', 'only an identifier of it', {
    hint: 'This quote names its PCK certificate by platform id: fetch collateral from a PCCS that knows the platform.',
  })
}

/** A quote that names its PCK certificate must name this one, as far as it can be compared without decrypting. */
function requireNamed({ certification }: Quote, pck: PckIdentity): void {
  if (certification.type === 'pck-chain') return
  const { pceId, type, ppid } = certification
  if (pceId !== undefined && pceId !== pck.pceId)
    throw refusal('pck-mismatch', `a PCK certificate of PCE ${pceId}`, pck.pceId)
  if (type === 'ppid-plain' && ppid !== pck.ppid)
    throw refusal('pck-mismatch', `a PCK certificate of PPID ${ppid}`, pck.ppid)
}

/** Signed by the PCK, and its report data binds the attestation key: SHA-256(key ‖ authentication data), zeros. */
function requireQeReport(quote: Quote, chain: Chain): void {
  requirePckSignature({ report: quote.qeReport.raw, signature: quote.qeReportSignature, chain })
  const bound = Buffer.alloc(reportFields.reportData.size)
  createHash('sha256').update(quote.attestationKey).update(quote.qeAuthData).digest().copy(bound)
  if (!quote.qeReport.reportData.equals(bound)) {
    throw refusal('qe-binding-invalid', 'a QE report that binds this attestation key', 'another')
  }
}

/** The enclave that made the quote is Intel's quoting enclave, in production mode. */
function requireQeIdentity(report: EnclaveReport, identity: QeIdentity): void {
  const wrong = (expected: string, got: string) =>
    refusal('qe-identity-mismatch', `a quoting enclave of ${expected}`, got)
  if (report.mrSigner !== identity.mrSigner) throw wrong(`MRSIGNER ${identity.mrSigner}`, report.mrSigner)
  if (report.productId !== identity.productId) throw wrong(`product ${identity.productId}`, `${report.productId}`)
  const { flags, xfrm, miscSelect } = reportFields
  const attributes = report.raw.subarray(flags.offset, xfrm.offset + xfrm.size)
  if (!equalsUnder(attributes, identity.attributesMask, identity.attributes)) {
    throw wrong(`attributes ${identity.attributes.toString('hex')}`, attributes.toString('hex'))
  }
  const misc = report.raw.subarray(miscSelect.offset, miscSelect.offset + miscSelect.size)
  if (!equalsUnder(misc, identity.miscSelectMask, identity.miscSelect)) {
    throw wrong(`MISCSELECT ${identity.miscSelect.toString('hex')}`, misc.toString('hex'))
  }
  if ((report.flags & attributeFlags.debug) !== 0n) throw wrong('production mode', 'debug mode')
}

const equalsUnder = (value: Buffer, mask: Buffer, expected: Buffer): boolean =>
  expected.every((byte, index) => (value[index]! & mask[index]!) === byte)

function requireRoot(chain: Chain, fingerprint: string): void {
  if (chain.root.fingerprint === fingerprint) return
  throw refusal('chain-untrusted-root', `a chain to the root with SHA-256 ${fingerprint}`, chain.root.fingerprint, {
    hint: 'The policy names the root it trusts. A simulated platform has a root of its own, which is never Intel’s.',
  })
}

function requireNotRevoked(certificate: Certificate, list: RevocationList): void {
  const revokedAt = list.revoked.get(certificate.serial)
  if (revokedAt === undefined) return
  const named = `"${certificate.subject.commonName}" ${certificate.serial}`
  throw refusal('certificate-revoked', `${named} to stand`, `a revocation of ${new Date(revokedAt).toISOString()}`, {
    hint: 'Intel withdrew its trust in this platform or signer: it must not be used again.',
  })
}

/** A quoting enclave shows the same report, under the same signature, in each quote until it makes a new attestation key. */
const requirePckSignature = memoize<PckSigned, true>(
  1024,
  ({ report, signature, chain }) =>
    `${report.toString('latin1')}${signature.toString('latin1')}${chain.leaf.fingerprint}`,
  ({ report, signature, chain }) => {
    if (isRawSignature(report, chain.leafKey, signature)) return true
    throw refusal('qe-report-signature-invalid', 'a QE report signed by the PCK', 'an invalid signature')
  },
)
interface PckSigned {
  readonly report: Buffer
  readonly signature: Buffer
  readonly chain: Chain
}

// Signed text reads the same each time. Its signature is checked each time all the same.
const readPckIdentity = memoize(256, (certificate: Certificate) => certificate.fingerprint, parsePckIdentity)
const readTcbInfo = memoize(64, (text: string) => text, parseTcbInfo)
const readQeIdentity = memoize(64, (text: string) => text, parseQeIdentity)
const readCrlHex = memoize(
  16,
  (hex: string) => hex,
  (hex) => parseRevocationList(Buffer.from(hex, 'hex')),
)

function readCrl(hex: string, what: string): RevocationList {
  try {
    return readCrlHex(hex)
  } catch (cause) {
    if (!(cause instanceof X509Error)) throw cause
    throw refusal('crl-unreadable', what, cause.message, { cause })
  }
}

function requireSigned(text: string, signatureHex: string, key: KeyObject, code: AttestationErrorCode): void {
  if (isRawSignature(Buffer.from(text, 'utf8'), key, Buffer.from(signatureHex, 'hex'))) return
  throw refusal(code, 'the very text that the TCB signer signed', 'a text or signature that was changed')
}

const windowOfCertificate = ({ subject, notBefore, notAfter }: Certificate): ValidityWindow => ({
  what: `the certificate "${subject.commonName}"`,
  kind: 'certificate',
  notBefore,
  notAfter,
})

function refusal(
  code: AttestationErrorCode,
  expected: string,
  got: string,
  { hint, ...rest }: { hint?: string; cause?: unknown } = {},
): AttestationError {
  return new AttestationError(code, `Expected ${expected}, got ${got}.`, {
    hint: hint ?? 'Fetch quote and collateral again; if it stays, do not trust this platform.',
    ...rest,
  })
}
