// SPDX-License-Identifier: Apache-2.0
import { CodedError } from '../errors.ts'

/** What goes wrong on the way from the network, or from a generator, to the disk. */
export class FetchError extends CodedError<
  'data-offline' | 'data-download-failed' | 'data-archive-malformed' | 'data-digest-mismatch' | 'data-unwritable'
> {}

/** Failures of the disk, as the system names them, as opposed to those of the network. */
export function unwritable(
  cause: unknown,
  hint = 'free some space (400 MB), or name another cache directory with CLOISTER_CACHE',
): FetchError | undefined {
  if (!(cause instanceof Error && 'code' in cause && diskFailures.has(String(cause.code)))) return undefined
  return new FetchError('data-unwritable', `expected to write the data, got ${cause.message}`, {
    hint,
    cause,
  })
}

const diskFailures = new Set(['ENOSPC', 'EDQUOT', 'EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR', 'EISDIR', 'EEXIST'])
