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
import type { AuditLog } from '../observability/audit-log.ts'
import type { EventSink, Role } from '../observability/events.ts'
import { publishable } from '../observability/publishable.ts'
import { openRunLog } from '../observability/run-log.ts'
import { openAudit, openPlatform } from './attestation.ts'
import { type CliContext, cacheDirectory, exitStatus, failureStatus, printError } from './context.ts'
import { loadRun, type RunOptions } from './options.ts'
import { createJsonLines, createProgress } from './progress.ts'
import { createRunDirectory } from './run-directory.ts'
import { openWatch, type Watch } from './watch.ts'

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
  /** Shows the graph to whoever watches the run. */
  readonly showGraph: (definition: Uint8Array) => void
  /** Aborted by a signal, or when the launcher is gone. */
  readonly signal: AbortSignal
  /** What attests this process; undefined for `train`, which talks to nobody. */
  readonly platform: Platform | undefined
  /** What this process writes down and signs; undefined for `train`. */
  readonly audit: AuditLog | undefined
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
  const isForMachines = options.launched === true || options.json === true
  const progress = isForMachines
    ? createJsonLines(context.stdout, context.now)
    : createProgress(context.stdout, context.now, job.training)
  let watch: Watch | undefined
  let audit: AuditLog | undefined
  const record: EventSink = (event) => {
    log.emit(event)
    watch?.emit(source, event)
    audit?.emit(event)
  }
  const events: EventSink = (reported) => {
    const event = publishable(reported)
    record(event)
    progress.show(source, event)
  }
  let engine: Engine | undefined
  try {
    watch = await openWatch({
      deployment,
      directory,
      source,
      now: context.now,
      events,
    })
    const { showGraph } = watch
    // First what a machine most likely lacks: it is found missing at once.
    const platform = role === 'train' ? undefined : await openPlatform(context, deployment)
    engine = openEngine({
      choice: deployment.engine.choice,
      directory: deployment.engine.directory ?? engineDirectory(cacheDirectory(context.env)),
      threads: deployment.engine.threads || Math.min(availableParallelism(), 127),
      onWarning: (error) => events({ kind: 'warning', error }),
    })
    const digest = jobDigest(job)
    const hex = Buffer.from(digest).toString('hex')
    events({ kind: 'process-started', role, engine: engine.description, job: hex, platform: platform?.kind ?? 'none' })
    if (platform?.warning !== undefined) events({ kind: 'warning', error: platform.warning })
    audit = platform && (await openAudit({ directory, source, role, job: hex, platform, context, events }))
    const signal = launcherGone === undefined ? context.signal : AbortSignal.any([context.signal, launcherGone])
    await body({
      job,
      digest,
      deployment,
      source,
      directory,
      engine,
      events,
      showGraph,
      signal,
      platform,
      audit,
      context,
    })
    return context.signal.aborted ? exitStatus.interrupted : exitStatus.ok
  } catch (thrown) {
    const error = publicError(thrown)
    if (isForMachines) events({ kind: 'failed', error })
    else record(publishable({ kind: 'failed', error }))
    progress.stop()
    if (options.launched !== true) printError(context, thrown)
    if (error.code === 'internal') context.stderr.write(`${String((thrown as Error).stack)}\n`)
    return context.signal.aborted ? exitStatus.interrupted : failureStatus(thrown)
  } finally {
    progress.stop()
    await engine?.close()
    await watch?.close()
    audit?.close()
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
