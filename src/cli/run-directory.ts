// SPDX-License-Identifier: Apache-2.0
/** The directory of one run: what lies where in it, and its creation. docs/cli.md lists the files. */
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { CodedError } from '../errors.ts'

export class RunDirectoryError extends CodedError<'out-not-empty' | 'out-not-writable'> {}

export interface RunDirectoryOptions {
  /** `runs/<time>` when absent. */
  readonly out: string | undefined
  readonly cwd: string
  readonly now: Date
  /** A file that the run will write: where it is already, the directory holds an earlier run and is refused. Undefined to go on in one. */
  readonly marker: string | undefined
}

export function createRunDirectory(options: RunDirectoryOptions): string {
  const { out, cwd, now, marker } = options
  const time = now.toISOString().replaceAll(':', '').replace('T', '-').slice(0, 17)
  const directory = resolve(cwd, out ?? join('runs', time))
  try {
    mkdirSync(directory, { recursive: true })
  } catch (cause) {
    throw new RunDirectoryError('out-not-writable', `${directory}: expected to create the run directory`, {
      hint: 'Name a directory that this user may write with --out DIR.',
      cause,
    })
  }
  if (marker !== undefined && existsSync(join(directory, marker))) {
    throw new RunDirectoryError(
      'out-not-empty',
      `${directory}: expected a new or empty directory, got one with ${marker} of an earlier run`,
      {
        hint: 'Name another with --out DIR, or move this one away.',
      },
    )
  }
  return directory
}

/** Written whole or not at all. */
export function writeJson(file: string, value: unknown): void {
  const temporary = `${file}.tmp`
  writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`)
  renameSync(temporary, file)
}
