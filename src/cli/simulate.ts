// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister simulate`: one server and all workers of a job as processes on this machine, exactly as they would run on
 * several: this file only starts them, shows what they report and ends them in order.
 */
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { startPccsServer } from '../attestation/pccs-server.ts'
import { fingerprintOf } from '../attestation/platforms/simulated-authority.ts'
import type { Deployment } from '../config/deployment.ts'
import { type Job, jobDigest } from '../config/job.ts'
import { loadJob } from '../config/load.ts'
import { CodedError, type PublicError } from '../errors.ts'
import { serverName } from '../federation/server-name.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { openAuthority } from './attestation.ts'
import { type CliContext, cacheDirectory, exitStatus } from './context.ts'
import { dataForRun } from './data-source.ts'
import { type LaunchedProcess, launch } from './launch.ts'
import { type MetricsServer, serveMetrics } from './metrics-server.ts'
import { loadRun, type RunOptions } from './options.ts'
import { writePlots } from './plots.ts'
import { strictPolicy } from './policy.ts'
import { createJsonLines, createProgress, type Progress } from './progress.ts'
import { createRunDirectory, writeJson } from './run-directory.ts'
import { printSummary } from './summary.ts'

export class SimulateError extends CodedError<'run-failed' | 'run-of-another-job'> {}

/** How long a process may take to save and leave once asked. */
const graceMs = 30_000

export interface SimulateOptions extends RunOptions {
  /** Goes on in the run directory of a run that was interrupted. */
  readonly resume?: boolean
}

export async function simulate(context: CliContext, options: SimulateOptions): Promise<number> {
  const { job, deployment } = loadRun(options, context.env)
  return runJob(context, { job, deployment }, options)
}

export interface JobRun {
  readonly job: Job
  readonly deployment: Deployment
}

export async function runJob(
  context: CliContext,
  run: JobRun,
  { json = false, resume = false }: Pick<SimulateOptions, 'json' | 'resume'> = {},
): Promise<number> {
  const { job, deployment } = run
  const directory = createRunDirectory({
    out: deployment.out,
    cwd: context.cwd,
    now: context.now(),
    marker: resume ? undefined : `${serverName(0)}.log`,
  })
  const shown = json
    ? createJsonLines(context.stdout, context.now)
    : createProgress(context.stdout, context.now, job.training)
  let metrics: MetricsServer | undefined
  const progress: Progress = {
    show(source, event) {
      metrics?.observe(source, event)
      shown.show(source, event)
    },
    stop: () => shown.stop(),
  }
  let processes: Processes | undefined
  let closePlatform = async (): Promise<void> => {}
  try {
    if (deployment.metrics !== undefined) {
      metrics = await serveMetrics({ ...deployment.metrics, now: context.now })
      progress.show('simulate', { kind: 'metrics-served', address: metrics.address })
    }
    const data = await dataForRun(context, {
      job,
      deployment,
      events: (event) => progress.show('data', event),
      signal: context.signal,
    })
    const attested = await attestedRun(context, run)
    closePlatform = attested.close
    if (resume) requireSameJob(directory, attested.job)
    writeJson(join(directory, 'job.json'), attested.job)
    // One port for the whole run: this process hears all events.
    const { metrics: _, ...deploymentOfEach } = attested.deployment
    writeJson(join(directory, 'deployment.json'), {
      ...deploymentOfEach,
      out: directory,
      data: { directory: data.directory },
      engine: { ...deployment.engine, threads: deployment.engine.threads || threadsEach(job.workers) },
    })
    processes = startProcesses(context, { job: attested.job, directory, resume, progress })
    await processes.finished
    progress.stop()
    await writePlots(directory)
    if (!json) printSummary(context.stdout, directory)
    return context.signal.aborted ? exitStatus.interrupted : exitStatus.ok
  } finally {
    progress.stop()
    await processes?.stopAll()
    await closePlatform()
    await metrics?.close()
  }
}

/**
 * A run that names no platform gets a simulated one, with its PCCS for as long as the run lasts, and a job without a policy the
 * strictest that such a platform passes: peers run this very code.
 */
async function attestedRun(
  context: CliContext,
  { job, deployment }: JobRun,
): Promise<JobRun & { close(): Promise<void> }> {
  if (deployment.platform !== undefined) return { job, deployment, close: async () => {} }
  const directory = join(cacheDirectory(context.env), 'simulated-platform')
  const authority = await openAuthority(directory, context.now)
  await authority.setVariants([])
  const pccs = await startPccsServer({ authority, host: '127.0.0.1', port: 0, now: context.now })
  const root = { name: 'simulated', sha256: fingerprintOf(authority.certificates.root) }
  return {
    job: { ...job, admission: job.admission ?? strictPolicy(root) },
    deployment: {
      ...deployment,
      platform: { kind: 'simulated', directory, machine: 'default' },
      collateral: { ...deployment.collateral, pccs: pccs.url, refreshMinutes: 1 },
    },
    close: () => pccs.close(),
  }
}

/** Its servers would go on from nothing: what is sealed there belongs to the job that was agreed on. */
function requireSameJob(directory: string, job: Job): void {
  const path = join(directory, 'job.json')
  if (!existsSync(path)) return
  const [before, now] = [loadJob(path), job].map((each) => Buffer.from(jobDigest(each)).toString('hex'))
  if (before === now) return
  throw new SimulateError('run-of-another-job', `${path}: expected the job ${now}, got ${before}`, {
    hint: 'Give --job and --set as the run was begun with, and the same version of Cloister; or begin anew with another --out DIR.',
  })
}

/** Cores are shared among the workers: the server computes for milliseconds while they wait. */
function threadsEach(workers: number): number {
  return Math.min(127, Math.max(1, Math.floor(availableParallelism() / workers)))
}

interface Processes {
  /** The server has finished and the workers have left; rejects when the run cannot go on. */
  readonly finished: Promise<void>
  stopAll(): Promise<void>
}

interface ProcessesOptions {
  readonly job: Job
  readonly directory: string
  readonly resume: boolean
  readonly progress: Progress
}

function startProcesses(context: CliContext, options: ProcessesOptions): Processes {
  const { job, directory, progress, resume } = options
  const files = ['--job', join(directory, 'job.json'), '--deployment', join(directory, 'deployment.json'), '--launched']
  if (resume) files.push('--resume')
  const followers: LaunchedProcess[] = []
  const workers: LaunchedProcess[] = []
  /** Of servers, in their order, as far as they listen. */
  const addresses: string[] = []
  let failure: PublicError | undefined
  const start = (source: string, role: string[], seen: (event: CloisterEvent) => void) =>
    launch({
      self: context.self,
      // Parties have machines of their own, of which one can fall out of policy alone.
      arguments: [...role, ...files, '--platform-machine', source],
      env: context.env,
      onEvent(event) {
        progress.show(source, event)
        if (event.kind === 'failed') failure ??= event.error
        seen(event)
      },
      onDiagnostic: (line) => context.stderr.write(`${source}: ${line}\n`),
    })

  const stopOthers = async (): Promise<void> => {
    const others = [...workers, ...followers]
    for (const other of others) other.stop(graceMs)
    await Promise.all(others.map((other) => other.exited))
  }
  const listening = (index: number) => (event: CloisterEvent) => {
    if (event.kind !== 'listening' || addresses[index] !== undefined) return
    addresses[index] = event.address
    if (index === 0) startFollowers(event.address)
    if (Object.keys(addresses).length === job.servers) startWorkers()
  }
  const startFollowers = (leader: string): void => {
    for (let index = 1; index < job.servers; index++) {
      const role = ['server', '--index', String(index), '--connect', leader]
      const follower = start(serverName(index), role, listening(index))
      followers.push(follower)
      // Its leader would wait for it for ever: here nobody would start it again.
      follower.exited.then((exit) => exit.status !== 0 && server.stop(graceMs))
    }
  }
  const startWorkers = (): void => {
    const servers = addresses.flatMap((address) => ['--connect', address])
    for (let index = 0; index < job.workers; index++) {
      const role = ['worker', '--index', String(index), ...servers]
      workers.push(start(`worker${index}`, role, () => {}))
    }
    Promise.all(workers.map((worker) => worker.exited)).then((exits) => {
      // A server without any worker left would wait for one for ever: here nobody would start one.
      if (exits.every((exit) => exit.status !== 0)) server.stop(graceMs)
    })
  }
  const server = start(serverName(0), ['server'], listening(0))
  // Server 0 saves what was learnt and sends the workers home; it alone is asked.
  const interrupt = (): void => server.stop(graceMs)
  context.signal.addEventListener('abort', interrupt, { once: true })

  const finished = server.exited.then(async (exit) => {
    if (exit.status !== 0 && !context.signal.aborted) {
      await stopOthers()
      throw new SimulateError(
        'run-failed',
        failure === undefined
          ? `the server process ended with ${JSON.stringify(exit)}`
          : `${failure.code}: ${failure.message}`,
        {
          hint: failure?.hint ?? `Read ${join(directory, 'server.log')}.`,
        },
      )
    }
    // Workers of a server that was stopped would wait for it to come back.
    if (context.signal.aborted) await stopOthers()
    await Promise.all([...workers, ...followers].map((other) => other.exited))
  })
  return {
    finished,
    async stopAll() {
      context.signal.removeEventListener('abort', interrupt)
      server.stop(graceMs)
      await Promise.all([server.exited, stopOthers()])
    },
  }
}
