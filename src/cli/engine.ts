// SPDX-License-Identifier: Apache-2.0
/** `cloister engine install|info`. */

import { EngineError } from '../engine/engine-error.ts'
import { type EngineInfo, engineInfo, type InstallProgress, installEngine } from '../engine/install.ts'
import { engineDirectory } from '../engine/locate.ts'
import { type CliContext, cacheDirectory, exitStatus } from './context.ts'

export async function install(context: CliContext, options: { quiet?: boolean }): Promise<number> {
  const info = await ensureEngine(context, { offline: false, quiet: options.quiet ?? false })
  context.stdout.write(`TensorFlow's library is at ${info.directory}\n`)
  return exitStatus.ok
}

export async function ensureEngine(
  context: CliContext,
  options: { offline: boolean; quiet?: boolean },
): Promise<EngineInfo> {
  const directory = engineDirectory(cacheDirectory(context.env))
  if (options.offline) {
    const info = await engineInfo({ directory })
    if (info.state === 'intact') return info
    throw new EngineError('engine-missing', `expected TensorFlow's library at ${directory}, got it ${info.state}`, {
      hint: 'Run `cloister engine install` where the network is.',
    })
  }
  const show = progressLine(context)
  try {
    return await installEngine({ directory, signal: context.signal, ...(!options.quiet && { onProgress: show }) })
  } finally {
    if (context.stderr.isTTY && !options.quiet) context.stderr.write('\x1b[2K\r')
  }
}

/** One line that changes on a terminal; a line a phase elsewhere. */
function progressLine(context: CliContext): (progress: InstallProgress) => void {
  let phase = ''
  return ({ phase: now, doneBytes, totalBytes }) => {
    const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(0)
    const words = { download: 'fetching', verify: 'checking', extract: 'unpacking' }[now]
    if (context.stderr.isTTY) {
      context.stderr.write(`\x1b[2K\r${words} TensorFlow ${mebibytes(doneBytes)} of ${mebibytes(totalBytes)} MiB`)
    } else if (phase !== now) {
      context.stderr.write(`${words} TensorFlow, ${mebibytes(totalBytes)} MiB\n`)
    }
    phase = now
  }
}

export async function info(
  context: CliContext,
  options: { engineDirectory?: string; json?: boolean },
): Promise<number> {
  const directory =
    options.engineDirectory ?? context.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory(context.env))
  const found = await engineInfo({ directory, signal: context.signal })
  if (options.json) {
    context.stdout.write(`${JSON.stringify(found, null, 2)}\n`)
  } else {
    context.stdout.write(`${found.directory}: ${found.state}\n`)
    for (const { name, state, sha256 } of found.files) {
      context.stdout.write(`  ${name.padEnd(30)} ${state}${sha256 === undefined ? '' : `  SHA-256 ${sha256}`}\n`)
    }
    if (found.state !== 'intact') context.stdout.write('Run `cloister engine install` to fetch the pinned library.\n')
  }
  return found.state === 'intact' ? exitStatus.ok : exitStatus.failed
}
