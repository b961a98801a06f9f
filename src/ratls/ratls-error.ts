// SPDX-License-Identifier: Apache-2.0
/** Why a peer was refused before it became a peer. What its quote proves or fails to prove is `attestation`'s to say. */
import { CodedError } from '../errors.ts'

export class RatlsError extends CodedError<
  // The channel itself
  | 'ratls-channel-unsuitable'
  // The certificate
  | 'ratls-certificate-key-unsupported'
  | 'ratls-certificate-signature-invalid'
  | 'ratls-certificate-not-yet-valid'
  | 'ratls-certificate-expired'
  | 'ratls-certificate-lifetime-too-long'
  // The evidence in it
  | 'ratls-evidence-absent'
  | 'ratls-evidence-malformed'
  | 'ratls-evidence-claim-missing'
  | 'ratls-evidence-hash-unsupported'
  | 'ratls-evidence-key-mismatch'
  | 'ratls-evidence-disagrees'
  // The exchange of fresh quotes
  | 'ratls-exchange-malformed'
  | 'ratls-exchange-timeout'
  | 'ratls-exchange-closed'
  | 'ratls-exchange-cancelled'
  | 'ratls-role-mismatch'
  | 'ratls-job-mismatch'
  | 'ratls-quote-not-fresh'
  | 'ratls-enclave-changed'
  | 'ratls-refused-by-peer'
> {}
