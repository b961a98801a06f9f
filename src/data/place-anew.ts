// SPDX-License-Identifier: Apache-2.0
/** A directory of made data is there whole or not at all. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { DataError } from './dataset.ts'

/** `write` fills a directory beside, which takes the name in the end. What lies there already is never replaced: `data-exists`. */
export async function placeAnew<Made>(directory: string, write: (unfinished: string) => Promise<Made>): Promise<Made> {
  const exists = (cause?: unknown): DataError =>
    new DataError('data-exists', `expected to make ${directory} anew, but something lies there`, {
      hint: 'name another directory, or delete this one',
      cause,
    })
  if ((await readdir(directory).catch(() => [])).length > 0) throw exists()
  const unfinished = `${directory}.unfinished-${process.pid}`
  await rm(unfinished, { recursive: true, force: true })
  await mkdir(unfinished, { recursive: true })
  try {
    const made = await write(unfinished)
    await rename(unfinished, directory).catch((cause: unknown) => {
      throw exists(cause)
    })
    return made
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true })
    throw error
  }
}
