// SPDX-License-Identifier: Apache-2.0
/** `cloister start`: the main job for someone who has just cloned: engine fetched, data found, one server, two workers. */
import { fileURLToPath } from 'node:url'
import { publicError } from '../errors.ts'
import type { CliContext } from './context.ts'
import { ensureEngine } from './engine.ts'
import { loadRun, type RunOptions } from './options.ts'
import { runJob } from './simulate.ts'

const quickStart = fileURLToPath(new URL('../../examples/quick-start.json', import.meta.url))
/** Where TensorFlow's library cannot be had, plain JavaScript shows the same thing on a far smaller job. */
const quickStartJavascript = fileURLToPath(new URL('../../examples/quick-start-javascript.json', import.meta.url))

export async function start(context: CliContext, options: Partial<RunOptions>): Promise<number> {
  let job = options.job ?? quickStart
  let choice = options.engine ?? 'auto'
  if (choice === 'auto' && options.engineDirectory === undefined && !context.env.CLOISTER_ENGINE) {
    try {
      await ensureEngine(context, { offline: options.offline ?? false })
      choice = 'tensorflow'
    } catch (thrown) {
      if (context.signal.aborted) throw thrown
      const { code, message, hint } = publicError(thrown)
      context.stderr.write(
        `cloister: WARNING ${code}: ${message}\n  ${hint}\n` +
          '  Going on with the JavaScript engine: correct, but a hundred times slower, so the job is a much smaller one.\n',
      )
      choice = 'javascript'
    }
  }
  if (choice === 'javascript' && options.job === undefined) job = quickStartJavascript
  const run = loadRun({ ...options, job, engine: choice }, context.env)
  return runJob(context, run, options)
}
