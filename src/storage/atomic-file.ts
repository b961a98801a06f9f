// SPDX-License-Identifier: Apache-2.0
/**
 * Replaces a file as a whole: whoever reads it, also after a crash at any moment, finds the old content or the new one.
 * One writer per path. The host may still delete the file or put an older one in its place.
 */
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { StorageError } from './storage-error.ts'

/** Makes the directory too. */
export async function writeFileAtomically(path: string, parts: Iterable<Uint8Array>): Promise<void> {
  const partial = `${path}.partial`
  try {
    await mkdir(dirname(path), { recursive: true })
    const file = await open(partial, 'w')
    try {
      for (const part of parts) await file.writeFile(part)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(partial, path)
    // The new name is durable only with the directory.
    const directory = await open(dirname(path), 'r')
    await directory.sync().finally(() => directory.close())
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => undefined)
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new StorageError('model-unwritable', `expected to write ${path}, got: ${reason}`, {
      hint: 'Check that the directory may be written and has room.',
      cause,
    })
  }
}
