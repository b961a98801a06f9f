// SPDX-License-Identifier: Apache-2.0
/**
 * Starts the processes of a run on this machine and watches them. A child's standard input stays open: its end tells the child
 * that the launcher is gone. Outside the enclave.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { CloisterEvent } from '../observability/events.ts'
import { parseEvent } from '../observability/publishable.ts'

export interface LaunchOptions {
  /** Executable and leading arguments that start this program. */
  readonly self: readonly [string, ...string[]]
  readonly arguments: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly onEvent: (event: CloisterEvent) => void
  /** What the child writes on standard error, a line at a time. */
  readonly onDiagnostic: (line: string) => void
}

export interface LaunchedProcess {
  readonly pid: number
  /** Exit status, or the signal that ended it. Never rejects. */
  readonly exited: Promise<{ readonly status: number | null; readonly signal: NodeJS.Signals | null }>
  /** Asks for an orderly end; after `graceMs` without one the process is killed. */
  stop(graceMs: number): void
}

export function launch(options: LaunchOptions): LaunchedProcess {
  const [executable, ...leading] = options.self
  // A process group of its own: Ctrl-C reaches the launcher alone, which then ends the run in order.
  const child: ChildProcess = spawn(executable, [...leading, ...options.arguments], {
    env: options.env as NodeJS.ProcessEnv,
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
  child.stdin?.on('error', () => {}) // The child may die first; its exit says so.

  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  lines.on('line', (line) => {
    const event = eventOf(line)
    if (event === undefined) options.onDiagnostic(line)
    else options.onEvent(event)
  })
  createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', options.onDiagnostic)

  const exited = new Promise<{ status: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('error', (error) => {
      options.onDiagnostic(error.message)
      resolve({ status: 127, signal: null })
    })
    // `close` comes after the output has been read to its end, so that no last event is lost.
    child.once('close', (status, signal) => resolve({ status, signal }))
  })
  return {
    pid: child.pid ?? -1,
    exited,
    stop(graceMs) {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
      exited.then(() => clearTimeout(timer))
    },
  }
}

/** The line is our own program's, but its host is not trusted: anything else is shown as text. */
function eventOf(line: string): CloisterEvent | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    return parseEvent(JSON.parse(line))
  } catch {
    return undefined
  }
}
