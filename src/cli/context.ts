// SPDX-License-Identifier: Apache-2.0
/** What a command may use of the process around it; main.ts makes the real one, tests make their own. */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { publicError } from '../errors.ts'
import { UsageError } from './usage-error.ts'

export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  /** How this program was started, to start it again for other roles: executable, its flags, entry file. */
  readonly self: readonly [string, ...string[]]
  readonly stdin: NodeJS.ReadableStream
  readonly stdout: Output
  readonly stderr: Output
  readonly now: () => Date
  /** Aborted by SIGINT or SIGTERM; the reason says which. A second signal ends the process at once. */
  readonly signal: AbortSignal
}

export interface Output {
  write(text: string): unknown
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
}

/** Exit statuses: documented in docs/cli.md. */
export const exitStatus = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const

/** What was typed cannot be meant: that is told from what failed. */
export function failureStatus(thrown: unknown): number {
  return thrown instanceof UsageError ? exitStatus.usage : exitStatus.failed
}

/** Per-user cache of the engine and of downloaded data. */
export function cacheDirectory(env: CliContext['env']): string {
  if (env.CLOISTER_CACHE) return env.CLOISTER_CACHE
  return join(env.XDG_CACHE_HOME || join(env.HOME || homedir(), '.cache'), 'cloister')
}

/** Shows what was thrown as code, message and hint. */
export function printError(context: Pick<CliContext, 'stderr'>, thrown: unknown): void {
  const { code, message, hint } = publicError(thrown)
  context.stderr.write(`cloister: ${code}: ${message}\n  ${hint}\n`)
}
