// SPDX-License-Identifier: Apache-2.0
/** One install at a time: a file that holds the process id of whoever installs. Outside the enclave, on a local disk. */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const retryMs = 250

/** Waits for the lock, runs `body`, releases it. The lock of a process that no longer runs is taken over. */
export async function withInstallLock<T>(
  path: string,
  signal: AbortSignal | undefined,
  body: () => Promise<T>,
): Promise<T> {
  await mkdir(dirname(path), { recursive: true })
  while (!(await take(path))) {
    await removeStale(path)
    await setTimeout(retryMs, undefined, signal === undefined ? {} : { signal })
  }
  try {
    return await body()
  } finally {
    await rm(path, { force: true })
  }
}

async function take(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx')
    await file.writeFile(String(process.pid))
    await file.close()
    return true
  } catch (thrown) {
    if (errorCode(thrown) === 'EEXIST') return false
    throw thrown
  }
}

/** Renaming first: of two processes that find the same stale lock only one can move it, and neither a fresh one. */
async function removeStale(path: string): Promise<void> {
  const owner = Number(await readFile(path, 'utf8').catch(() => ''))
  if (!(owner > 0) || isRunning(owner)) return
  const aside = `${path}.${process.pid}`
  await rename(path, aside).catch(() => {})
  const moved = Number(await readFile(aside, 'utf8').catch(() => ''))
  // A fresh lock was moved after all: between reading and renaming its owner had taken the stale one's place.
  if (moved > 0 && moved !== owner) await rename(aside, path)
  else await rm(aside, { force: true })
}

function isRunning(processId: number): boolean {
  try {
    process.kill(processId, 0)
    return true
  } catch (thrown) {
    return errorCode(thrown) !== 'ESRCH'
  }
}

function errorCode(thrown: unknown): unknown {
  return thrown instanceof Error && 'code' in thrown ? thrown.code : undefined
}
