// SPDX-License-Identifier: Apache-2.0
/** `cloister job check|schema`: what a job file says, without running it. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { jobDigest } from '../config/job.ts'
import { loadJob } from '../config/load.ts'
import type { CliContext } from './context.ts'
import { writeJson } from './run-directory.ts'
import { UsageError } from './usage-error.ts'

export async function check(
  context: CliContext,
  options: { set?: string[]; out?: string },
  file: string,
): Promise<number> {
  const job = loadJob(file, options.set)
  if (options.out !== undefined) writeJson(resolve(context.cwd, options.out), job)
  context.stdout.write(`${JSON.stringify(job, null, 2)}\ndigest ${Buffer.from(jobDigest(job)).toString('hex')}\n`)
  return 0
}

export async function schema(context: CliContext, _options: unknown, kind: string): Promise<number> {
  if (kind !== 'job' && kind !== 'deployment') {
    throw new UsageError('schema-unknown', `expected job or deployment, got ${kind}`, {
      hint: 'Run `cloister job schema job` or `cloister job schema deployment`.',
    })
  }
  context.stdout.write(readFileSync(new URL(`../../schemas/${kind}.schema.json`, import.meta.url), 'utf8'))
  return 0
}
