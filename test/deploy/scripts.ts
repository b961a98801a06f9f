// SPDX-License-Identifier: Apache-2.0
/** A directory in which the scripts of deploy/docker run with programs that only record what they are told. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach } from 'vitest'

export const scripts = resolve(import.meta.dirname, '../../deploy/docker')
export let directory: string

/** To be called once by a file of tests: a fresh directory for each. */
export function freshDirectories(): void {
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'cloister-scripts-'))
    mkdirSync(join(directory, 'bin'))
    mkdirSync(join(directory, '.config/gramine'), { recursive: true })
    writeFileSync(join(directory, '.config/gramine/enclave-key.pem'), 'x')
  })
  afterEach(() => rmSync(directory, { recursive: true, force: true }))
}

export interface Ran {
  readonly status: number | null
  readonly out: string
  readonly err: string
}

/** PATH has the fakes before the system's programs; nothing else of the environment comes in. */
export function run(script: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Ran {
  const { status, stdout, stderr } = spawnSync('/bin/sh', [join(scripts, script), ...args], {
    env: { PATH: `${join(directory, 'bin')}:/usr/bin:/bin`, HOME: directory, TMPDIR: directory, ...env },
    encoding: 'utf8',
    timeout: 30_000,
  })
  return { status, out: stdout, err: stderr }
}

export function program(name: string, body: string): void {
  const file = join(directory, 'bin', name)
  writeFileSync(file, `#!/bin/sh\n${body}\n`)
  chmodSync(file, 0o755)
}

export const told = (): string[] => readFileSync(join(directory, 'told'), 'utf8').trimEnd().split('\n')
