// SPDX-License-Identifier: Apache-2.0
/**
 * ECDSA quotes of version 3 (Intel SGX "ECDSA Quote Library Reference", appendix A.4), bytes → value. The quote comes from a
 * peer or from the host: every byte is hostile, and nothing is verified here. Lengths must add up exactly: a quote has no
 * bytes that belong to no field. What we cannot verify is refused by name rather than parsed.
 */
import { AttestationError, type AttestationErrorCode } from './error.ts'
import {
  attestationKeyTypeEcdsaP256,
  certificationDataTypes,
  type Field,
  intelQeVendorId,
  qeAuthDataOffset,
  quoteFields,
  quoteSignedSize,
  quoteVersion3,
  reportFields,
  teeTypeSgx,
  teeTypeTdx,
} from './format.ts'

/** What the CPU says about an enclave (SGX REPORT body). Byte strings of the format are hex here; flags are the raw 64 bits. */
export interface EnclaveReport {
  readonly raw: Buffer
  readonly cpuSvn: string
  readonly miscSelect: string
  readonly extendedProductId: string
  readonly flags: bigint
  readonly xfrm: bigint
  readonly mrEnclave: string
  readonly mrSigner: string
  readonly configId: string
  readonly productId: number
  readonly svn: number
  readonly configSvn: number
  readonly familyId: string
  readonly reportData: Buffer
}

/** How the quote names the PCK certificate: by value, or by what a PCCS looks it up with. */
export type CertificationData =
  | { readonly type: 'pck-chain'; readonly pem: string }
  | {
      readonly type: 'ppid-plain' | 'ppid-rsa2048' | 'ppid-rsa3072'
      /** Plain or encrypted platform id, hex. */
      readonly ppid: string
      readonly cpuSvn: string
      readonly pceSvn: number
      /** Plain identifiers of old quoting libraries lack it. */
      readonly pceId: string | undefined
    }

declare const parsedBrand: unique symbol
/** Made by `parseQuote` and nowhere else, of bytes that are its own: its fields are what is in `raw`. */
export interface Quote {
  readonly [parsedBrand]: true
  readonly raw: Buffer
  /** What the attestation key signs. */
  readonly signed: Buffer
  readonly qeSvn: number
  readonly pceSvn: number
  readonly qeVendorId: string
  readonly userData: string
  readonly report: EnclaveReport
  readonly signature: Buffer
  /** x‖y on P-256, not yet known to be on the curve. */
  readonly attestationKey: Buffer
  readonly qeReport: EnclaveReport
  readonly qeReportSignature: Buffer
  readonly qeAuthData: Buffer
  readonly certification: CertificationData
}

/** A quote grows with its certificates, which are some 4 KB; /dev/attestation gives at most 8 KB. */
export const maxQuoteBytes = 16_384

export function parseQuote(bytes: Uint8Array): Quote {
  // A copy: what was read must not change with the caller's bytes.
  const raw = Buffer.from(bytes)
  if (raw.length > maxQuoteBytes) throw refusal('quote-malformed', `at most ${maxQuoteBytes} bytes`, `${raw.length}`)
  const header = need(raw, 0, quoteFields.report.offset, 'the header')
  requireSupported(header)
  need(raw, 0, quoteFields.signature.offset, 'the report and the length of the signature data')
  const signatureData = raw.readUInt32LE(quoteFields.signatureDataLength.offset)
  const declared = quoteFields.signature.offset + signatureData
  if (raw.length < declared)
    throw refusal('quote-truncated', `${declared} bytes as its length field says`, `${raw.length}`)
  if (raw.length > declared) {
    throw refusal('quote-trailing-bytes', `${declared} bytes as its length field says`, `${raw.length}`)
  }
  need(raw, 0, qeAuthDataOffset, 'the signature data', 'quote-malformed')
  const authSize = raw.readUInt16LE(quoteFields.qeAuthDataLength.offset)
  const certificationOffset = qeAuthDataOffset + authSize
  need(raw, certificationOffset, 6, 'type and length of the certification data', 'quote-malformed')
  const type = raw.readUInt16LE(certificationOffset)
  const size = raw.readUInt32LE(certificationOffset + 2)
  const data = raw.subarray(certificationOffset + 6)
  if (data.length !== size) throw refusal('quote-malformed', `${size} bytes of certification data`, `${data.length}`)
  return {
    raw,
    signed: raw.subarray(0, quoteSignedSize),
    qeSvn: raw.readUInt16LE(quoteFields.qeSvn.offset),
    pceSvn: raw.readUInt16LE(quoteFields.pceSvn.offset),
    qeVendorId: hex(raw, quoteFields.qeVendorId),
    userData: hex(raw, quoteFields.userData),
    report: readReport(slice(raw, quoteFields.report)),
    signature: slice(raw, quoteFields.signature),
    attestationKey: slice(raw, quoteFields.attestationKey),
    qeReport: readReport(slice(raw, quoteFields.qeReport)),
    qeReportSignature: slice(raw, quoteFields.qeReportSignature),
    qeAuthData: raw.subarray(qeAuthDataOffset, certificationOffset),
    certification: readCertification(type, data),
  } as Omit<Quote, typeof parsedBrand> as Quote
}

function requireSupported(header: Buffer): void {
  const version = header.readUInt16LE(quoteFields.version.offset)
  const keyType = header.readUInt16LE(quoteFields.attestationKeyType.offset)
  const teeType = header.readUInt32LE(quoteFields.teeType.offset)
  if (version < quoteVersion3) {
    throw refusal('quote-epid-unsupported', 'an ECDSA quote of version 3', `version ${version}, which EPID uses`)
  }
  if (teeType === teeTypeTdx) throw refusal('quote-tdx-unsupported', 'a quote of an SGX enclave', 'one of a TDX domain')
  if (version > quoteVersion3) throw refusal('quote-version-unsupported', 'version 3', `version ${version}`)
  if (teeType !== teeTypeSgx) throw refusal('quote-malformed', 'TEE type 0 (SGX)', `0x${teeType.toString(16)}`)
  if (keyType !== attestationKeyTypeEcdsaP256) {
    throw refusal('quote-key-type-unsupported', 'attestation key type 2 (ECDSA on P-256)', `type ${keyType}`)
  }
  const vendor = hex(header, quoteFields.qeVendorId)
  if (vendor !== intelQeVendorId) throw refusal('quote-qe-unsupported', `Intel's quoting enclave`, `vendor ${vendor}`)
}

function readReport(raw: Buffer): EnclaveReport {
  const text = (field: Field): string => hex(raw, field)
  return {
    raw,
    cpuSvn: text(reportFields.cpuSvn),
    miscSelect: text(reportFields.miscSelect),
    extendedProductId: text(reportFields.extendedProductId),
    flags: raw.readBigUInt64LE(reportFields.flags.offset),
    xfrm: raw.readBigUInt64LE(reportFields.xfrm.offset),
    mrEnclave: text(reportFields.mrEnclave),
    mrSigner: text(reportFields.mrSigner),
    configId: text(reportFields.configId),
    productId: raw.readUInt16LE(reportFields.productId.offset),
    svn: raw.readUInt16LE(reportFields.svn.offset),
    configSvn: raw.readUInt16LE(reportFields.configSvn.offset),
    familyId: text(reportFields.familyId),
    reportData: slice(raw, reportFields.reportData),
  }
}

const identifiers: Readonly<
  Record<number, { type: 'ppid-plain' | 'ppid-rsa2048' | 'ppid-rsa3072'; ppidSize: number }>
> = {
  [certificationDataTypes.ppidPlain]: { type: 'ppid-plain', ppidSize: 16 },
  [certificationDataTypes.ppidRsa2048]: { type: 'ppid-rsa2048', ppidSize: 256 },
  [certificationDataTypes.ppidRsa3072]: { type: 'ppid-rsa3072', ppidSize: 384 },
}

function readCertification(type: number, data: Buffer): CertificationData {
  if (type === certificationDataTypes.pckChain) return { type: 'pck-chain', pem: data.toString('latin1') }
  const identifier = identifiers[type]
  if (!identifier) {
    throw refusal('quote-certification-unsupported', 'certification data of type 1, 2, 3 or 5', `type ${type}`)
  }
  const svnOffset = identifier.ppidSize
  const size = svnOffset + 16 + 2
  const hasPceId = data.length === size + 2
  if (!hasPceId && data.length !== size) {
    throw refusal('quote-malformed', `${size} or ${size + 2} bytes of certification data`, `${data.length}`)
  }
  return {
    type: identifier.type,
    ppid: data.toString('hex', 0, svnOffset),
    cpuSvn: data.toString('hex', svnOffset, svnOffset + 16),
    pceSvn: data.readUInt16LE(svnOffset + 16),
    pceId: hasPceId ? data.toString('hex', size) : undefined,
  }
}

const slice = (bytes: Buffer, { offset, size }: Field): Buffer => bytes.subarray(offset, offset + size)
const hex = (bytes: Buffer, { offset, size }: Field): string => bytes.toString('hex', offset, offset + size)

/** `code` differs behind the length field: there, too few bytes contradict it and are not a quote cut short. */
function need(
  bytes: Buffer,
  offset: number,
  size: number,
  what: string,
  code: AttestationErrorCode = 'quote-truncated',
): Buffer {
  if (bytes.length < offset + size) {
    throw refusal(code, `${offset + size} bytes up to the end of ${what}`, `${bytes.length}`)
  }
  return bytes.subarray(offset, offset + size)
}

function refusal(code: AttestationErrorCode, expected: string, got: string): AttestationError {
  return new AttestationError(code, `Quote: expected ${expected}, got ${got}.`, {
    hint: 'The peer must send the bytes of /dev/attestation/quote unchanged, from a platform with SGX DCAP (ECDSA) attestation.',
  })
}
