// SPDX-License-Identifier: Apache-2.0
/** What can go wrong with saved models, exports, sealed files and checkpoints. */
import { CodedError } from '../errors.ts'

export class StorageError extends CodedError<
  | 'model-unreadable'
  | 'model-malformed'
  | 'model-of-another-job'
  | 'export-too-large'
  | 'storage-unwritable'
  | 'storage-full'
  | SealedRefusal
  | 'checkpoint-malformed'
  | 'checkpoint-missing'
> {}

/** Why a sealed file is not taken. */
export type SealedRefusal =
  | 'sealed-unreadable'
  | 'sealed-malformed'
  | 'sealed-truncated'
  | 'sealed-damaged'
  | 'sealed-of-another-key'
  | 'sealed-of-another-kind'
  | 'sealed-of-another-job'
  | 'sealed-of-another-server'
  | 'sealed-of-another-step'
  | 'sealed-swapped'
