#!/usr/bin/env -S node --max-semi-space-size=32
// SPDX-License-Identifier: Apache-2.0
/** argv → command → exit status. Alone touches argv, signals and exit. */
import { type CliContext, exitStatus } from './cli/context.ts'
import { run } from './cli/program.ts'
import { letHeapGrow, startFlags } from './cli/v8-flags.ts'

letHeapGrow()

const interruption = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // The first asks for an orderly end, the second insists.
    if (interruption.signal.aborted) process.exit(exitStatus.interrupted)
    interruption.abort(signal)
  })
}

// Whoever reads what we print may leave before us (`| head`, a launcher that was killed): a run still saves what it learnt.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})

const context: CliContext = {
  env: process.env,
  cwd: process.cwd(),
  self: [process.execPath, ...new Set([...startFlags, ...process.execArgv]), process.argv[1] as string],
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  now: () => new Date(),
  signal: interruption.signal,
}

process.exitCode = await run(process.argv.slice(2), context)
// Nothing may keep a finished command alive: a read of standard input, a socket that a peer holds open.
process.exit()
