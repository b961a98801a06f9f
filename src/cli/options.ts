// SPDX-License-Identifier: Apache-2.0
/** The options that all commands that run a job share, and how they change the job and deployment files. */
import type { Deployment } from '../config/deployment.ts'
import { deploymentSchema } from '../config/deployment.ts'
import type { Job } from '../config/job.ts'
import { loadDeployment, loadJob, validate } from '../config/load.ts'
import type { CliContext } from './context.ts'
import { UsageError } from './usage-error.ts'

export interface RunOptions {
  readonly job: string
  readonly set?: readonly string[]
  readonly deployment?: string
  readonly out?: string
  readonly data?: string
  readonly engine?: string
  readonly platform?: string
  readonly platformDirectory?: string
  readonly platformMachine?: string
  readonly pccs?: string
  readonly qcnl?: string
  readonly engineDirectory?: string
  readonly threads?: number
  readonly listen?: string
  readonly connect?: readonly string[]
  readonly health?: string
  readonly metrics?: string
  /** Events as JSON lines on standard output. */
  readonly json?: boolean
  readonly offline?: boolean
}

export interface RunInputs {
  readonly job: Job
  readonly deployment: Deployment
}

/** Files first, then the environment's two variables, then options: the nearer to the user, the stronger. */
export function loadRun(options: RunOptions, env: CliContext['env']): RunInputs {
  const job = loadJob(options.job, options.set)
  const base = loadDeployment(options.deployment)
  const listen = options.listen === undefined ? base.server.listen : parseAddress(options.listen)
  const dataDirectory = options.data ?? base.data.directory ?? env.CLOISTER_DATA
  const engineDirectory = options.engineDirectory ?? base.engine.directory ?? env.CLOISTER_ENGINE
  const merged = {
    ...base,
    server: {
      ...base.server,
      listen,
      ...given('health', options.health === undefined ? base.server.health : parseAddress(options.health)),
      ...given('addresses', options.connect ?? base.server.addresses),
    },
    data: { ...given('directory', dataDirectory || undefined) },
    engine: {
      choice: options.engine ?? base.engine.choice,
      threads: options.threads ?? base.engine.threads,
      ...given('directory', engineDirectory || undefined),
    },
    ...given('platform', platformOf(options, base)),
    collateral: { ...base.collateral, ...given('pccs', options.pccs), ...given('qcnl', options.qcnl) },
    ...given('metrics', options.metrics === undefined ? base.metrics : parseAddress(options.metrics)),
    ...given('out', options.out ?? base.out),
  }
  return { job, deployment: validate(deploymentSchema, merged, 'command line') }
}

function platformOf({ platform, platformDirectory, platformMachine }: RunOptions, base: Deployment): unknown {
  const machine = given('machine', platformMachine)
  if (platform === undefined && platformDirectory === undefined) {
    return base.platform?.kind === 'simulated' ? { ...base.platform, ...machine } : base.platform
  }
  if (platform === 'gramine') return { kind: platform }
  if (platformDirectory !== undefined) return { kind: 'simulated', directory: platformDirectory, ...machine }
  throw new UsageError('platform-directory-missing', 'expected the directory of a simulated platform, got none', {
    hint: 'Start one with `cloister platform serve DIR` and name it with --platform-directory DIR.',
  })
}

function given<Name extends string, Value>(name: Name, value: Value | undefined): Partial<Record<Name, Value>> {
  return value === undefined ? {} : ({ [name]: value } as Record<Name, Value>)
}

/** `host:port`, `[::1]:port`; validated with the rest of the deployment. */
export function parseAddress(text: string): { host: string; port: number } {
  const at = text.lastIndexOf(':')
  const host = at < 0 ? text : text.slice(0, at)
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: at < 0 ? 0 : Number(text.slice(at + 1)) }
}
