// SPDX-License-Identifier: Apache-2.0
/**
 * Intel's formats as constants: where things lie in an ECDSA quote of version 3, in an enclave report, in a PCK certificate,
 * and what Intel calls the members of its PKI. Sources: Intel SGX DCAP "ECDSA Quote Library Reference" (appendix A.4) and
 * "PCK Certificate and CRL Profile". All integers in a quote are little-endian. Nothing here verifies anything.
 */

/** One field: where it starts, how many bytes it has. */
export interface Field {
  readonly offset: number
  readonly size: number
}

/** The quote up to the end of the fixed-size signature fields, measured from the start of the quote. */
export const quoteFields = {
  version: { offset: 0, size: 2 },
  attestationKeyType: { offset: 2, size: 2 },
  /** Zero for SGX. Version 4 and later put the TEE type here: 0x81 is TDX. */
  teeType: { offset: 4, size: 4 },
  qeSvn: { offset: 8, size: 2 },
  pceSvn: { offset: 10, size: 2 },
  qeVendorId: { offset: 12, size: 16 },
  userData: { offset: 28, size: 20 },
  report: { offset: 48, size: 384 },
  signatureDataLength: { offset: 432, size: 4 },
  /** ECDSA r‖s by the attestation key over bytes [0, 432). */
  signature: { offset: 436, size: 64 },
  /** The attestation public key, x‖y on P-256. */
  attestationKey: { offset: 500, size: 64 },
  qeReport: { offset: 564, size: 384 },
  /** ECDSA r‖s by the PCK key over the QE report. */
  qeReportSignature: { offset: 948, size: 64 },
  qeAuthDataLength: { offset: 1012, size: 2 },
} as const satisfies Record<string, Field>

/** The attestation key signs the header and the report: everything before the length of the signature data. */
export const quoteSignedSize = 432
/** Where the quoting enclave's authentication data starts; certification data (type 2, length 4, bytes) follow it. */
export const qeAuthDataOffset = 1014

/** An enclave report body, measured from its start. The gaps are reserved. */
export const reportFields = {
  cpuSvn: { offset: 0, size: 16 },
  miscSelect: { offset: 16, size: 4 },
  extendedProductId: { offset: 32, size: 16 },
  flags: { offset: 48, size: 8 },
  xfrm: { offset: 56, size: 8 },
  mrEnclave: { offset: 64, size: 32 },
  mrSigner: { offset: 128, size: 32 },
  configId: { offset: 192, size: 64 },
  productId: { offset: 256, size: 2 },
  svn: { offset: 258, size: 2 },
  configSvn: { offset: 260, size: 2 },
  familyId: { offset: 304, size: 16 },
  reportData: { offset: 320, size: 64 },
} as const satisfies Record<string, Field>

export const quoteVersion3 = 3
export const attestationKeyTypeEcdsaP256 = 2
export const teeTypeSgx = 0
export const teeTypeTdx = 0x81
/** QE_VENDOR_ID of Intel's quoting enclave. */
export const intelQeVendorId = '939a7233f79c4ca9940a0db3957f0607'

/** What may lie in the certification data of a quote. */
export const certificationDataTypes = {
  ppidPlain: 1,
  ppidRsa2048: 2,
  ppidRsa3072: 3,
  pckLeaf: 4,
  pckChain: 5,
  qeReport: 6,
  platformManifest: 7,
} as const

/** Bits of ATTRIBUTES.FLAGS (Intel SDM volume 3D, 34.7.1). */
export const attributeFlags = {
  init: 0x01n,
  debug: 0x02n,
  mode64Bit: 0x04n,
  provisionKey: 0x10n,
  licenseKey: 0x20n,
  keySeparation: 0x80n,
} as const

const sgxExtensions = '1.2.840.113741.1.13.1'
/** The SGX extension of a PCK certificate: a SEQUENCE of {OID, value} pairs, each OID under the extension's own. */
export const pckOids = {
  extension: sgxExtensions,
  ppid: `${sgxExtensions}.1`,
  /** SEQUENCE of {OID, value}: .1 to .16 component SVNs (INTEGER), .17 PCESVN (INTEGER), .18 CPUSVN (16 bytes). */
  tcb: `${sgxExtensions}.2`,
  pceSvn: `${sgxExtensions}.2.17`,
  cpuSvn: `${sgxExtensions}.2.18`,
  pceId: `${sgxExtensions}.3`,
  fmspc: `${sgxExtensions}.4`,
  sgxType: `${sgxExtensions}.5`,
  platformInstanceId: `${sgxExtensions}.6`,
  configuration: `${sgxExtensions}.7`,
  dynamicPlatform: `${sgxExtensions}.7.1`,
  cachedKeys: `${sgxExtensions}.7.2`,
  smtEnabled: `${sgxExtensions}.7.3`,
} as const
export const tcbComponentOid = (index: number): string => `${pckOids.tcb}.${index}`
export const tcbComponentCount = 16

/** ENUMERATED values of the SGX type in a PCK certificate. */
export const sgxTypes = ['Standard', 'Scalable', 'ScalableWithIntegrity'] as const

/** Subject common names of Intel's SGX PKI: what a certificate may do in it follows from its name as well as its bits. */
export const pkiNames = {
  root: 'Intel SGX Root CA',
  processorCa: 'Intel SGX PCK Processor CA',
  platformCa: 'Intel SGX PCK Platform CA',
  pck: 'Intel SGX PCK Certificate',
  tcbSigner: 'Intel SGX TCB Signing',
} as const

/** SHA-256 over the DER of Intel's SGX root CA certificate, valid 2018 to 2049. */
export const intelRootFingerprint = '44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3'
