#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Entry of the enclave image; main.ts is that of the command line. Takes nothing of the host's arguments and environment: the manifest
 * passes none, and none would be read here. The working directory is the manifest's (fs.start_dir) and so measured.
 */
import { type CliContext, exitStatus } from './cli/context.ts'
import { enclave } from './cli/enclave.ts'
import { letHeapGrow } from './cli/v8-flags.ts'

letHeapGrow()

const interruption = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (interruption.signal.aborted) process.exit(exitStatus.interrupted)
    interruption.abort(signal)
  })
}
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})

const context: CliContext = {
  env: {},
  cwd: process.cwd(),
  self: [process.execPath, import.meta.filename],
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  now: () => new Date(),
  signal: interruption.signal,
}

process.exitCode = await enclave(context)
process.exit()
