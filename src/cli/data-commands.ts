// SPDX-License-Identifier: Apache-2.0
/** `cloister data …` as typed: options and terminal on one side, data.ts on the other. */
import { resolve } from 'node:path'
import { type CliContext, cacheDirectory, exitStatus } from './context.ts'
import { fetchData, inspectData, synthesizeData } from './data.ts'
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

export function inspect(context: CliContext, options: { json?: boolean }, directory?: string): Promise<number> {
  const named = directory ?? context.env.CLOISTER_DATA
  const where = named === undefined ? `${cacheDirectory(context.env)}/data/cifar10` : resolve(context.cwd, named)
  return withProgress(context, options, (common) => inspectData({ ...common, directory: where }))
}

export function synthesize(
  context: CliContext,
  options: { seed: number; records: number; json?: boolean },
  directory: string,
): Promise<number> {
  return withProgress(context, options, (common) =>
    synthesizeData({
      ...common,
      directory: resolve(context.cwd, directory),
      seed: options.seed,
      recordsPerFile: options.records,
    }),
  )
}

async function withProgress(
  context: CliContext,
  options: { json?: boolean },
  run: (common: Pick<Parameters<typeof inspectData>[0], 'json' | 'write' | 'events' | 'signal'>) => Promise<unknown>,
): Promise<number> {
  const progress = createProgress(context.stderr, context.now, 0)
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
