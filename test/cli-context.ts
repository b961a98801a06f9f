/** A context for commands that keeps what they print. */
import type { CliContext } from '../src/cli/context.ts'

export function testContext(changes: Partial<CliContext> = {}) {
  const printed = { out: '', err: '' }
  const abort = new AbortController()
  const context: CliContext = {
    env: {},
    cwd: '/',
    self: ['node', 'main.js'],
    stdin: process.stdin,
    stdout: {
      write: (text) => {
        printed.out += text
      },
    },
    stderr: {
      write: (text) => {
        printed.err += text
      },
    },
    now: () => new Date(),
    signal: abort.signal,
    ...changes,
  }
  return { context, printed, abort }
}
