// SPDX-License-Identifier: Apache-2.0
/** What can go wrong with saved models. */
import { CodedError } from '../errors.ts'

export class StorageError extends CodedError<
  'model-unwritable' | 'model-unreadable' | 'model-malformed' | 'model-of-another-job' | 'optimizer-state-lost'
> {}
