// SPDX-License-Identifier: Apache-2.0
/**
 * What server, worker and train have in common: job and deployment read, run directory made, engine opened, events written,
 * a failure told once and turned into an exit status.
 */
import { availableParallelism } from 'node:os'
import type { Platform } from '../attestation/platforms/platform.ts'
import type { Deployment } from '../config/deployment.ts'
import { type Job, jobDigest } from '../config/job.ts'
import type { Engine } from '../engine/engine.ts'
import { engineDirectory } from '../engine/locate.ts'
import { openEngine } from '../engine/select.ts'
import { publicError } from '../errors.ts'
import type { EventSink, Role } from '../observability/events.ts'
import { eventLine, openRunLog } from '../observability/run-log.ts'
import { openPlatform } from './attestation.ts'
import { type CliContext, cacheDirectory, exitStatus, failureStatus, printError } from './context.ts'
import { loadRun, type RunOptions } from './options.ts'
import { createProgress } from './progress.ts'
import { createRunDirectory } from './run-directory.ts'

export interface RoleSession {
  readonly job: Job
  readonly digest: Uint8Array
  readonly deployment: Deployment
  /** `server`, `worker0`, …: what this process calls its files. */
  readonly source: string
  /** Run directory. */
  readonly directory: string
  readonly engine: Engine
  readonly events: EventSink
  /** Aborted by a signal, or when the launcher is gone. */
  readonly signal: AbortSignal
  /** What attests this process; undefined for `train`, which talks to nobody. */
  readonly platform: Platform | undefined
  readonly context: CliContext
}

export interface RoleOptions extends RunOptions {
  /** Started by `cloister simulate`: events go to standard output as JSON lines; the end of standard input ends the run. */
  readonly launched?: boolean
  /** Goes on in the run directory of an earlier process. */
  readonly resume?: boolean
}

export interface RoleIdentity {
  readonly role: Role
  readonly source: RoleSession['source']
}

export async function runRole(
  context: CliContext,
  options: RoleOptions,
  identity: RoleIdentity,
  body: (session: RoleSession) => Promise<void>,
): Promise<number> {
  const { job, deployment } = loadRun(options, context.env)
  const { role, source } = identity
  const directory = createRunDirectory({
    out: deployment.out,
    cwd: context.cwd,
    now: context.now(),
    marker: options.resume ? undefined : `${source}.log`,
  })
  const launcherGone = options.launched ? endOfInput(context) : undefined
  const log = openRunLog({
    directory,
    source,
    now: context.now,
    onFailure: (error) => context.stderr.write(`${source}: the log cannot be written: ${String(error)}\n`),
  })
  const progress =
    launcherGone === undefined ? createProgress(context.stdout, context.now, job.training.updates) : undefined
  const events: EventSink = (event) => {
    log.emit(event)
    if (progress === undefined) context.stdout.write(eventLine(event, source, context.now()))
    else progress.show(source, event)
  }
  let engine: Engine | undefined
  try {
    engine = openEngine({
      choice: deployment.engine.choice,
      directory: deployment.engine.directory ?? engineDirectory(cacheDirectory(context.env)),
      threads: deployment.engine.threads || Math.min(availableParallelism(), 127),
      onWarning: (error) => events({ kind: 'warning', error }),
    })
    const platform = role === 'train' ? undefined : await openPlatform(context, deployment)
    const digest = jobDigest(job)
    const hex = Buffer.from(digest).toString('hex')
    events({ kind: 'process-started', role, engine: engine.description, job: hex, platform: platform?.kind ?? 'none' })
    if (platform?.warning !== undefined) events({ kind: 'warning', error: platform.warning })
    const signal = launcherGone === undefined ? context.signal : AbortSignal.any([context.signal, launcherGone])
    await body({ job, digest, deployment, source, directory, engine, events, signal, platform, context })
    return context.signal.aborted ? exitStatus.interrupted : exitStatus.ok
  } catch (thrown) {
    progress?.stop()
    const error = publicError(thrown)
    if (progress === undefined) events({ kind: 'failed', error })
    else {
      log.emit({ kind: 'failed', error })
      printError(context, thrown)
    }
    if (error.code === 'internal') context.stderr.write(`${String((thrown as Error).stack)}\n`)
    return context.signal.aborted ? exitStatus.interrupted : failureStatus(thrown)
  } finally {
    progress?.stop()
    await engine?.close()
    log.close()
  }
}

/** The launcher holds our standard input open: its end means that nobody is left to run for. */
function endOfInput(context: CliContext): AbortSignal {
  const gone = new AbortController()
  context.stdin.resume()
  context.stdin.once('end', () => gone.abort('the launcher is gone'))
  return gone.signal
}
