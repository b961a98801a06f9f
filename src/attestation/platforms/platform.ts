// SPDX-License-Identifier: Apache-2.0
/**
 * What an enclave can do for itself: say what code it is, obtain a quote over 64 bytes, and obtain keys that only this code
 * (or this signer) on this machine gets. Two kinds exist, `gramine` and `simulated`; nothing after a quote knows which.
 */
import { CodedError, type PublicError } from '../../errors.ts'
import { attributeFlags, type Field, reportFields } from '../format.ts'

/** `mrenclave`: this very code; `mrsigner`: any code of the same signer, so that an upgrade can read what its predecessor sealed. */
export type SealingKeyKind = 'mrenclave' | 'mrsigner'

/** What this enclave is, from a source that the host cannot alter. Digests in lower-case hex. */
export interface SelfMeasurement {
  readonly mrEnclave: string
  readonly mrSigner: string
  readonly productId: number
  readonly svn: number
  readonly debug: boolean
}

export interface Platform {
  readonly kind: 'gramine' | 'simulated'
  readonly self: SelfMeasurement
  /** What every start on this platform must say aloud: in the log, the dashboard, the audit record. */
  readonly warning?: PublicError
  /** An ECDSA quote of version 3 whose REPORTDATA is exactly these 64 bytes. */
  quote(reportData: Uint8Array): Promise<Uint8Array>
  /** 16 bytes, the same on every start: key material for HKDF, never used as it is. */
  sealingKey(kind: SealingKeyKind): Promise<Uint8Array>
}

export class PlatformError extends CodedError<
  | 'platform-absent'
  | 'platform-not-sgx'
  | 'platform-attestation-disabled'
  | 'platform-attestation-unsupported'
  | 'platform-device-failed'
  | 'platform-quote-failed'
  | 'platform-quote-mismatch'
  | 'platform-sealing-key-unavailable'
  | 'platform-state-invalid'
  | 'platform-simulated-refused'
  | 'platform-variant-unknown'
> {}

export const reportDataBytes = reportFields.reportData.size

/** The bytes of one field; a view, not a copy. */
export function fieldOf(bytes: Uint8Array, { offset, size }: Field): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset + offset, size)
}

/** Reads the identity out of a report body whose origin the caller trusts. */
export function measurementOf(report: Uint8Array): SelfMeasurement {
  return {
    mrEnclave: fieldOf(report, reportFields.mrEnclave).toString('hex'),
    mrSigner: fieldOf(report, reportFields.mrSigner).toString('hex'),
    productId: fieldOf(report, reportFields.productId).readUInt16LE(),
    svn: fieldOf(report, reportFields.svn).readUInt16LE(),
    debug: (fieldOf(report, reportFields.flags).readBigUInt64LE() & attributeFlags.debug) !== 0n,
  }
}
