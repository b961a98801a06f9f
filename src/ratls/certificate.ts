// SPDX-License-Identifier: Apache-2.0
/**
 * RA-TLS certificates: self-signed, with a quote that names the certificate's key in an extension. Ours carry the evidence
 * of interoperable RA-TLS and Gramine's older form, so that Gramine's verifiers accept them; we read those of Gramine, Intel's SDK
 * and RATS-TLS. Reading proves that certificate, claims and REPORTDATA belong together, and nothing about the quote: the
 * peer, and the host in between, chose every byte.
 *
 * Never `new X509Certificate(der)` on one of these: OpenSSL finds the PEM chain inside the quote and answers with Intel's CA.
 */
import { createHash, generateKeyPairSync, type KeyObject, verify } from 'node:crypto'
import { reportFields } from '../attestation/format.ts'
import { parseQuote, type Quote } from '../attestation/quote.ts'
import { readEcKey } from '../x509/ec-key.ts'
import { memoize } from '../x509/memo.ts'
import { type Certificate, oids, parseCertificate, refuseCritical } from '../x509/read.ts'
import {
  authorityKeyIdentifier,
  basicConstraints,
  createCertificate,
  publicKeyInfo,
  subjectKeyIdentifier,
} from '../x509/write.ts'
import { encodeClaims, encodeEvidence, keyHashMatches, parseEvidence } from './evidence.ts'
import { RatlsError } from './ratls-error.ts'

/** Interoperable RA-TLS: tcg-dice-conceptual-message-wrapper. */
export const evidenceOid = '2.23.133.5.4.9'
/** What Gramine's 1.2.840.113741.1337.6 looks like on the wire: its tag and length bytes are encoded a second time, as content. */
export const gramineOid = '0.6.9.42.840.113741.1337.6'
/** Intel SDK. The same OID marks the SGX extension in PCK certificates, where it holds something else. */
export const intelOid = '1.2.840.113741.1.13.1'

const name = { CN: 'RATLS', O: 'Cloister' }
/** Clocks differ, and the enclave's is the host's. */
const backdatedMs = 5 * 60_000
const signatureHashes: Readonly<Record<string, string>> = {
  [oids.ecdsaWithSha256]: 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
}
export interface AttestedIdentity {
  /** PEM. The key exists in this process only. */
  readonly certificate: string
  readonly privateKey: string
  /** SHA-256 over the SubjectPublicKeyInfo. */
  readonly publicKeyHash: Buffer
}

export interface CertificateEvidence {
  /** Where the quote was found; `tcg` is preferred when there are two. */
  readonly form: 'tcg' | 'gramine' | 'intel'
  readonly quote: Quote
  /** SHA-256 over the SubjectPublicKeyInfo: the key that the quote, once verified, belongs to. */
  readonly publicKeyHash: Buffer
  readonly notBefore: number
  readonly notAfter: number
}

/** A fresh key and a certificate for it, attested by `quote`. Times in ms since 1970. */
export async function createAttestedIdentity(options: {
  readonly quote: (reportData: Uint8Array) => Promise<Uint8Array>
  readonly now: number
  readonly lifetimeMs: number
}): Promise<AttestedIdentity> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keyInfo = publicKeyInfo(publicKey)
  const claims = encodeClaims(keyInfo)
  const evidence = encodeEvidence(await options.quote(reportDataOver(claims)), claims)
  const legacyQuote = await options.quote(reportDataOver(keyInfo))
  const { pem } = createCertificate({
    // A key has one certificate, so the hash of the key is a serial number as unique as any.
    serialNumber: sha256(keyInfo).readBigUInt64BE(),
    issuer: name,
    subject: name,
    notBefore: new Date(options.now - backdatedMs),
    notAfter: new Date(options.now + options.lifetimeMs),
    publicKey,
    extensions: [
      basicConstraints({ ca: false }, false),
      subjectKeyIdentifier(publicKey),
      authorityKeyIdentifier(publicKey),
      { oid: gramineOid, critical: false, value: legacyQuote },
      { oid: evidenceOid, critical: false, value: evidence },
    ],
    signingKey: privateKey,
  })
  return {
    certificate: pem,
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicKeyHash: sha256(keyInfo),
  }
}

/** Throws RatlsError, X509Error or AttestationError unless the certificate is whole, self-signed, and its evidence names its own key. */
export const parseCertificateEvidence: (der: Uint8Array) => CertificateEvidence = memoize(
  // A peer that comes back shows the certificate that it showed before. Some 30 KB each.
  64,
  (der) => sha256(der).toString('latin1'),
  (der) => {
    // A copy, since what is remembered must not change with the caller's bytes.
    const certificate = parseCertificate(Buffer.from(der))
    refuseCritical(certificate.extensions, [oids.basicConstraints, oids.keyUsage])
    verifySelfSignature(certificate, readPublicKey(certificate))
    return {
      ...readEvidence(certificate),
      publicKeyHash: sha256(certificate.publicKey),
      notBefore: certificate.notBefore,
      notAfter: certificate.notAfter,
    }
  },
)

/** Short-lived, because a quote in a certificate says nothing about now. Times in ms since 1970. */
export function verifyValidity(
  certificate: Pick<CertificateEvidence, 'notBefore' | 'notAfter'>,
  { now, maxLifetimeMs }: { readonly now: number; readonly maxLifetimeMs: number },
): void {
  const { notBefore, notAfter } = certificate
  const text = (time: number): string => new Date(time).toISOString()
  const hint = 'Certificates are made anew at every start: look at the clocks of both hosts.'
  if (notBefore > now)
    throw new RatlsError(
      'ratls-certificate-not-yet-valid',
      `expected a current certificate at ${text(now)}, got one from ${text(notBefore)}`,
      { hint },
    )
  if (notAfter < now)
    throw new RatlsError(
      'ratls-certificate-expired',
      `expected a current certificate at ${text(now)}, got one until ${text(notAfter)}`,
      {
        hint,
      },
    )
  if (notAfter - notBefore > maxLifetimeMs + backdatedMs)
    throw new RatlsError(
      'ratls-certificate-lifetime-too-long',
      `expected a lifetime of at most ${maxLifetimeMs / 3_600_000} h, got ${text(notBefore)} to ${text(notAfter)}`,
      { hint: 'A stolen key is worth as long as its certificate lives: the peer must issue shorter ones.' },
    )
}

/** Old and new form name the same key and the same enclave, or are refused. */
function readEvidence(certificate: Certificate): Pick<CertificateEvidence, 'form' | 'quote'> {
  const { extensions, publicKey } = certificate
  const keyReportData = reportDataOver(publicKey)
  const evidence = extensions.get(evidenceOid)
  const [gramine, intel] = [extensions.get(gramineOid)?.value, extensions.get(intelOid)?.value]
  const legacy = [gramine, intel].filter((quote) => quote !== undefined)
  if (!evidence) {
    const [older, another] = legacy
    if (!older || another)
      throw new RatlsError(
        older ? 'ratls-evidence-disagrees' : 'ratls-evidence-absent',
        `expected one quote in an RA-TLS extension, got ${legacy.length} among extensions ${[...extensions.keys()].join(', ').slice(0, 300)}`,
        { hint: 'The peer does not run in an enclave, or is not an RA-TLS peer at all.' },
      )
    const quote = parseQuote(older)
    requireReportData(quote, [keyReportData], 'the certificate key')
    return { form: gramine ? 'gramine' : 'intel', quote }
  }
  const { quote: quoteBytes, claims, keyHash } = parseEvidence(evidence.value)
  if (!keyHashMatches(keyHash, publicKey)) throw keyMismatch('the claims to name the certificate key')
  const quote = parseQuote(quoteBytes)
  const claimsReportData = reportDataOver(claims)
  requireReportData(quote, [claimsReportData], 'the claims')
  for (const older of legacy.map(parseQuote)) {
    // Intel's SDK puts the very same quote into both.
    requireReportData(older, [keyReportData, claimsReportData], 'the certificate key or the claims')
    if (!enclaveIn(older).equals(enclaveIn(quote)))
      throw new RatlsError(
        'ratls-evidence-disagrees',
        'expected both quotes of the certificate to come from one enclave, got two different reports',
        { hint: 'Nobody makes such a certificate by accident. Do not trust this peer.' },
      )
  }
  return { form: 'tcg', quote }
}

function readPublicKey({ publicKey }: Certificate): KeyObject {
  const key = readEcKey(publicKey, ['P-256', 'P-384'])
  if (key) return key
  throw new RatlsError(
    'ratls-certificate-key-unsupported',
    `expected an uncompressed key on P-256 or P-384, got ${publicKey.subarray(0, 32).toString('hex')}…`,
    { hint: 'RA-TLS peers make their keys at start: configure the peer for P-256.' },
  )
}

function verifySelfSignature(certificate: Certificate, key: KeyObject): void {
  const hash = signatureHashes[certificate.signatureAlgorithm]
  const selfSigned =
    certificate.issuer.der.equals(certificate.subject.der) &&
    hash !== undefined &&
    verify(hash, certificate.signed, key, certificate.signature)
  if (!selfSigned)
    throw new RatlsError(
      'ratls-certificate-signature-invalid',
      `expected a certificate signed with its own key by ECDSA with SHA-256 or SHA-384, got algorithm ${certificate.signatureAlgorithm}`,
      { hint: 'The certificate was changed or cut on its way, or was not issued by the enclave itself.' },
    )
}

function requireReportData({ report }: Quote, accepted: readonly Buffer[], what: string): void {
  // All 64 bytes: a tail that nobody checks is a place for a second meaning.
  if (!accepted.some((expected) => expected.equals(report.reportData)))
    throw keyMismatch(`REPORTDATA to be the SHA-256 of ${what} and 32 zero bytes`)
}

/** The enclave's report without what it says about keys. */
function enclaveIn({ report }: Quote): Buffer {
  return report.raw.subarray(0, reportFields.reportData.offset)
}

function keyMismatch(expected: string): RatlsError {
  return new RatlsError('ratls-evidence-key-mismatch', `expected ${expected}, got another value`, {
    hint: 'The quote was made for another key: this is what a man in the middle with a copied quote looks like.',
  })
}

function reportDataOver(bytes: Uint8Array): Buffer {
  return Buffer.concat([sha256(bytes), Buffer.alloc(32)])
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}
