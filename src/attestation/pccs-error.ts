// SPDX-License-Identifier: Apache-2.0
/** Why collateral could not be had. None of these says anything about a peer: evidence without collateral is not proven. */
import { CodedError } from '../errors.ts'

export class PccsError extends CodedError<
  | 'pccs-configuration-invalid'
  | 'pccs-address-unusable'
  | 'pccs-unreachable'
  | 'pccs-timeout'
  | 'pccs-redirect-refused'
  | 'pccs-answer-too-large'
  | 'pccs-answer-malformed'
  | 'pccs-refused'
  | 'pccs-platform-unknown'
  | 'pccs-version-retired'
  | 'collateral-not-cached'
  | 'collateral-bundle-unsuitable'
  | 'collateral-bundle-malformed'
> {}
