// SPDX-License-Identifier: Apache-2.0
/** `cloister data …` as typed: options and terminal on one side, data.ts on the other. */
import { readdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { criteoFileNames } from '../data/criteo/criteo-source.ts'
import { unwritable } from '../data/fetch-error.ts'
import { type CliContext, cacheDirectory, exitStatus } from './context.ts'
import { type CommandOptions, fetchData, inspectData, synthesizeData } from './data.ts'
import { inspectCriteoData, synthesizeCriteo as writeCriteo } from './data-criteo.ts'
import { createProgress } from './progress.ts'
import { UsageError } from './usage-error.ts'

export async function fetch(
  context: CliContext,
  options: { out?: string; json?: boolean },
  name: string,
): Promise<number> {
  if (name !== 'cifar10') {
    throw new UsageError('data-set-unknown', `expected cifar10, got ${name}`, {
      hint: 'Run `cloister data fetch cifar10`.',
    })
  }
  return withProgress(context, options, (common) =>
    fetchData({
      ...common,
      cacheDirectory: cacheDirectory(context.env),
      ...(options.out !== undefined && { directory: resolve(context.cwd, options.out) }),
    }),
  )
}

export async function inspect(context: CliContext, options: { json?: boolean }, directory?: string): Promise<number> {
  const named = directory ?? context.env.CLOISTER_DATA
  const where = named === undefined ? `${cacheDirectory(context.env)}/data/cifar10` : resolve(context.cwd, named)
  return withProgress(context, options, async (common) =>
    (await holdsClickLogs(where))
      ? inspectCriteoData({ ...common, path: where })
      : inspectData({ ...common, directory: where }),
  )
}

/** A file, or a directory with files of Criteo's names and none of CIFAR-10's; what is not there is reported as images are. */
async function holdsClickLogs(path: string): Promise<boolean> {
  const names = await readdir(path).catch((error: NodeJS.ErrnoException) => error.code)
  if (!Array.isArray(names)) return names === 'ENOTDIR'
  return criteoFileNames(names).length > 0 && !names.some((name) => /^(?:data_batch_\d|test_batch)\.bin$/.test(name))
}

export function synthesizeCifar10(
  context: CliContext,
  options: { seed: number; records: number; json?: boolean },
  directory: string,
): Promise<number> {
  return withProgress(context, options, (common) =>
    writing(
      synthesizeData({
        ...common,
        directory: resolve(context.cwd, directory),
        seed: options.seed,
        recordsPerFile: options.records,
      }),
    ),
  )
}

export function synthesizeCriteo(
  context: CliContext,
  options: { rows: number; seed: number; files: number; gz?: boolean; json?: boolean },
  directory: string,
): Promise<number> {
  if (options.files > options.rows) {
    throw new UsageError('data-files-too-many', `expected at most ${options.rows} files, got ${options.files}`, {
      hint: 'Give each file at least one row.',
    })
  }
  return withProgress(context, options, (common) =>
    writing(
      writeCriteo({
        ...common,
        directory: resolve(context.cwd, directory),
        rows: options.rows,
        seed: options.seed,
        files: options.files,
        gzip: options.gz ?? false,
      }),
    ),
  )
}

/** A directory that cannot be made or filled is no bug. */
async function writing(work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (cause) {
    throw unwritable(cause, 'name a directory that you may write to, on a disk with room') ?? cause
  }
}

async function withProgress(
  context: CliContext,
  options: { json?: boolean },
  run: (common: CommandOptions) => Promise<unknown>,
): Promise<number> {
  const progress = createProgress(context.stderr, context.now, { updates: 0 })
  try {
    await run({
      json: options.json ?? false,
      write: (text) => {
        progress.stop()
        context.stdout.write(text)
      },
      events: (event) => progress.show('data', event),
      signal: context.signal,
    })
  } finally {
    progress.stop()
  }
  return exitStatus.ok
}
