// SPDX-License-Identifier: Apache-2.0
/** What can go wrong with keys, with files encrypted to them, and with handing them over. No message ever quotes a secret. */
import { CodedError } from '../errors.ts'

export class KeysError extends CodedError<
  // Keys themselves
  | 'age-identity-malformed'
  | 'age-recipient-malformed'
  | 'owner-key-malformed'
  | 'sealing-key-malformed'
  | 'key-name-malformed'
  | 'key-too-large'
  // Files encrypted with age
  | 'age-identity-missing'
  | 'age-identity-wrong'
  | 'age-file-malformed'
  | 'age-file-damaged'
  | 'data-file-unreadable'
  | 'data-file-compression-damaged'
  // Keys that an owner hands to an enclave
  | 'key-not-provisioned'
  | 'key-not-wanted'
  | 'key-already-provisioned'
  | 'key-owner-unknown'
  | 'key-proof-invalid'
  | 'key-store-damaged'
  | 'provision-unreachable'
  | 'provision-address-unusable'
  | 'provision-handshake-failed'
> {}
