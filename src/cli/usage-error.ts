// SPDX-License-Identifier: Apache-2.0
import { CodedError } from '../errors.ts'

/** What was typed cannot be meant: the option parser cannot know it, the command does. */
export class UsageError extends CodedError<
  | 'data-files-too-many'
  | 'data-set-unknown'
  | 'schema-unknown'
  | 'worker-index-out-of-range'
  | 'server-address-missing'
  | 'server-index-out-of-range'
  | 'owners-missing'
  | 'release-needs-platform'
  | 'data-directory-missing'
  | 'platform-directory-missing'
  | 'audit-head-malformed'
  | 'audit-head-ambiguous'
> {}
