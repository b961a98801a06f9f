// SPDX-License-Identifier: Apache-2.0
import { CodedError } from '../errors.ts'

/** What was typed cannot be meant: the option parser cannot know it, the command does. */
export class UsageError extends CodedError<
  | 'data-set-unknown'
  | 'schema-unknown'
  | 'worker-index-out-of-range'
  | 'server-address-missing'
  | 'data-directory-missing'
  | 'platform-directory-missing'
> {}
