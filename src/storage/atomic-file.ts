// SPDX-License-Identifier: Apache-2.0
/**
 * Replaces a file as a whole: whoever reads it, also after a crash at any moment, finds the old content or the new one.
 * One writer per path. The host may still delete the file or put an older one in its place.
 */
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { StorageError } from './storage-error.ts'

/** What stands beside a file while it is written; after a crash it is garbage. */
export const partialSuffix = '.partial'

/** Makes the directory too. What `parts` throws is passed on. */
export async function writeFileAtomically(
  path: string,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  const partial = `${path}${partialSuffix}`
  try {
    await mkdir(dirname(path), { recursive: true })
    const file = await open(partial, 'w')
    try {
      for await (const part of parts) await file.writeFile(part)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(partial, path)
    // The new name is durable only with the directory.
    await syncDirectory(dirname(path))
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => undefined)
    throw isSystemError(cause) ? unwritable(path, cause) : cause
  }
}

/** Makes durable which names a directory holds. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  await directory.sync().finally(() => directory.close())
}

/** No room on the device, no room in the quota, no file so big. */
const fullCodes: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT', 'EFBIG'])

function isSystemError(thrown: unknown): thrown is NodeJS.ErrnoException {
  return thrown instanceof Error && 'syscall' in thrown
}

export function unwritable(path: string, cause: NodeJS.ErrnoException): StorageError {
  const message = `expected to write ${path}, got: ${cause.message}`
  return fullCodes.has(cause.code)
    ? new StorageError('storage-full', message, {
        hint: 'Make room, or raise the quota or the limit of file sizes: nothing that was there before is lost.',
        cause,
      })
    : new StorageError('storage-unwritable', message, { hint: 'Check that the directory may be written.', cause })
}
