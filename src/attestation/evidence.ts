// SPDX-License-Identifier: Apache-2.0
/**
 * What verification proved about an enclave, as typed values: the input of policy.ts, of logs and of the audit record. Proven does
 * not mean wanted: a debug enclave on a revoked platform has evidence too.
 */
import { attributeFlags, pkiNames } from './format.ts'
import type { PckIdentity } from './pck.ts'
import type { EnclaveReport } from './quote.ts'
import type { QeStatus, TcbStatus } from './tcb.ts'
import type { ValidityWindow } from './validity.ts'

export interface Measurements {
  readonly mrEnclave: string
  readonly mrSigner: string
  readonly productId: number
  readonly svn: number
  readonly extendedProductId: string
  readonly familyId: string
  readonly configId: string
  readonly configSvn: number
}

export interface Attributes {
  readonly init: boolean
  readonly debug: boolean
  readonly mode64Bit: boolean
  readonly provisionKey: boolean
  readonly licenseKey: boolean
  /** All 64 bits, hex, and the extended features that the enclave may use. */
  readonly flags: string
  readonly xfrm: string
  readonly miscSelect: string
}

export interface PlatformIdentity {
  readonly ppid: string
  readonly instanceId: string | undefined
  readonly fmspc: string
  readonly pceId: string
  readonly sgxType: PckIdentity['sgxType']
  readonly ca: 'processor' | 'platform'
}

export interface EvidenceFacts {
  readonly measurements: Measurements
  readonly attributes: Attributes
  /** What the enclave wanted said, 64 bytes in hex. */
  readonly reportData: string
  readonly platform: PlatformIdentity
  /** Platform and quoting enclave taken together. */
  readonly tcbStatus: TcbStatus
  readonly platformStatus: TcbStatus
  readonly qeStatus: QeStatus
  /** Dates of the matched levels: which Intel recovery they stand for. Milliseconds. */
  readonly platformTcbDate: number
  readonly qeTcbDate: number
  readonly advisories: readonly string[]
  /** The lower one of TCB info and QE identity. */
  readonly tcbEvaluationNumber: number
  /** SHA-256 of the root certificate that all of it chains to, hex. */
  readonly rootFingerprint: string
  /** Everything that this rests on, and when it is valid. */
  readonly validity: readonly ValidityWindow[]
  readonly latestIssue: number
  readonly earliestExpiry: number
  readonly verifiedAt: number
}

export const measurementsOf = (report: EnclaveReport): Measurements => ({
  mrEnclave: report.mrEnclave,
  mrSigner: report.mrSigner,
  productId: report.productId,
  svn: report.svn,
  extendedProductId: report.extendedProductId,
  familyId: report.familyId,
  configId: report.configId,
  configSvn: report.configSvn,
})

export function attributesOf(report: EnclaveReport): Attributes {
  const has = (flag: bigint): boolean => (report.flags & flag) !== 0n
  return {
    init: has(attributeFlags.init),
    debug: has(attributeFlags.debug),
    mode64Bit: has(attributeFlags.mode64Bit),
    provisionKey: has(attributeFlags.provisionKey),
    licenseKey: has(attributeFlags.licenseKey),
    flags: report.flags.toString(16).padStart(16, '0'),
    xfrm: report.xfrm.toString(16).padStart(16, '0'),
    miscSelect: report.miscSelect,
  }
}

export const platformOf = (pck: PckIdentity, caName: string | undefined): PlatformIdentity => ({
  ppid: pck.ppid,
  instanceId: pck.platformInstanceId,
  fmspc: pck.fmspc,
  pceId: pck.pceId,
  sgxType: pck.sgxType,
  ca: caName === pkiNames.platformCa ? 'platform' : 'processor',
})
