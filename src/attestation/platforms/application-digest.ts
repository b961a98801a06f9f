// SPDX-License-Identifier: Apache-2.0
/**
 * MRENCLAVE on the simulated platform: SHA-256 over the list of the application's own files, each line as `sha256sum` writes it, so that
 * anyone can compute it: `cd <root> && sha256sum <files in this order> | sha256sum`. Change a byte of the code and it is another
 * enclave, as on SGX. Tests, type declarations and source maps are no code that runs.
 */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { basename, dirname, join, relative, sep } from 'node:path'

export interface MeasuredFile {
  /** Relative to the root, with `/`. */
  readonly path: string
  readonly sha256: string
}

export interface ApplicationMeasurement {
  readonly mrEnclave: string
  readonly files: readonly MeasuredFile[]
}

/** Of the build that `entryFile` starts: its directory (dist, or src when run from sources), the package file and the lock file. */
export function measureBuild(entryFile: string): Promise<ApplicationMeasurement> {
  const directory = dirname(entryFile)
  return measureApplication(dirname(directory), [basename(directory), 'package.json', 'package-lock.json'])
}

/** `entries`: files and directories under `root`; what is absent does not count (a checkout has a lock file, a package has none). */
export async function measureApplication(root: string, entries: readonly string[]): Promise<ApplicationMeasurement> {
  const paths = (await Promise.all(entries.map((entry) => filesUnder(root, entry)))).flat()
  const unique = [...new Set(paths)].sort()
  const files: MeasuredFile[] = []
  for (const path of unique) {
    const content = await readFile(join(root, path))
    files.push({ path, sha256: createHash('sha256').update(content).digest('hex') })
  }
  const list = files.map(({ path, sha256 }) => `${sha256}  ${path}\n`).join('')
  return { mrEnclave: createHash('sha256').update(list).digest('hex'), files }
}

async function filesUnder(root: string, entry: string): Promise<string[]> {
  let found: string[]
  try {
    const listed = await readdir(join(root, entry), { recursive: true, withFileTypes: true })
    found = listed.filter((file) => file.isFile()).map((file) => relative(root, join(file.parentPath, file.name)))
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
    if (code === 'ENOENT') return []
    if (code !== 'ENOTDIR') throw cause
    found = [entry]
  }
  return found.map((path) => path.split(sep).join('/')).filter((path) => !/(\.test\.[jt]s|\.d\.ts|\.map)$/.test(path))
}
