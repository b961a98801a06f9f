// SPDX-License-Identifier: Apache-2.0
/** `result.json`: the figures of a run; and what a person reads at its end. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Job } from '../config/job.ts'
import { serverName } from '../federation/server-name.ts'
import type { AuditHead } from '../observability/audit-record.ts'
import type { PeerEvidence } from '../observability/events.ts'
import { formatScores } from '../observability/log.ts'
import type { Output } from './context.ts'
import type { RoleSession } from './role.ts'
import { writeJson } from './run-directory.ts'

export interface RunResult {
  readonly workload: Job['workload']
  /** SHA-256 of the job, hex. */
  readonly job: string
  readonly mode: 'asynchronous' | 'synchronous' | 'one process'
  /** `cifar-10` or `synthetic`. */
  readonly dataSource: string
  readonly engine: string
  /** What attested the process that writes this: `gramine`, `simulated` or, in one process, `none`. */
  readonly platform: string
  /** Updates of the model. */
  readonly steps: number
  readonly examples: number
  /** From the first batch handed out to the last update applied; evaluation and start-up left out. */
  readonly seconds: number
  readonly examplesPerSecond: number
  /** Scores of the final model on held-out data; `null` where the run was interrupted before. */
  readonly heldOut: Readonly<Record<string, number>> | null
  readonly interrupted: boolean
  /** Where the server's audit log stood: what is cut away before it shows (docs/audit.md). */
  readonly audit: AuditHead | null
  readonly peers: readonly { readonly name: string; readonly examples: number; readonly evidence: PeerEvidence }[]
}

/** Figures of a finished run, whoever trained. */
export interface TrainedRun {
  readonly mode: RunResult['mode']
  readonly reason: 'complete' | 'stopped'
  readonly version: number
  readonly examples: number
  readonly seconds: number
  readonly heldOut: { readonly examples: number; readonly scores: Readonly<Record<string, number>> }
  readonly dataSource: string
  readonly peers: RunResult['peers']
}

export function resultOf({ job, digest, engine, platform, audit }: RoleSession, run: TrainedRun): RunResult {
  return {
    workload: job.workload,
    job: Buffer.from(digest).toString('hex'),
    mode: run.mode,
    dataSource: run.dataSource,
    engine: engine.description,
    platform: platform?.kind ?? 'none',
    steps: run.version,
    examples: run.examples,
    seconds: run.seconds,
    examplesPerSecond: run.seconds > 0 ? run.examples / run.seconds : 0,
    heldOut: run.heldOut.examples > 0 ? run.heldOut.scores : null,
    interrupted: run.reason === 'stopped',
    audit: audit?.head ?? null,
    peers: run.peers,
  }
}

/** What may lie in a run directory, in the order in which it is shown. */
const contents: readonly (readonly [string, string])[] = [
  ['result.json', 'the figures of this run'],
  ['model', 'the learnt values'],
  ['model/graph.pb', 'the graph, for TensorFlow and TensorBoard'],
  ['loss.svg', 'loss, drawn'],
  ['accuracy.svg', 'held-out accuracy, drawn'],
  ['auc.svg', 'held-out AUC, drawn'],
  ['tensorboard', 'curves and graph: tensorboard --logdir'],
  ['server.log', 'what the server did'],
  ['worker0.log', 'what a worker did; each has one'],
  ['train.log', 'what was done'],
  ['checkpoints', 'sealed, to go on from'],
  ['evidence', 'what every peer proved, to judge again'],
  ['audit', 'what enclaves wrote down and signed, to verify'],
  ['events.jsonl', 'all of it for machines'],
  ['partition.json', 'which example trained where'],
  ['job.json', 'what was agreed on'],
]

/** Of one server; that of server 0 has the figures of the run. */
export function resultName(server: number): string {
  return server === 0 ? 'result.json' : `result-${serverName(server)}.json`
}

export function writeResult({ directory, events }: RoleSession, result: RunResult): void {
  const path = join(directory, resultName(0))
  writeJson(path, result)
  events({ kind: 'saved', what: 'result', path, step: result.steps })
}

/** What a server that follows knows for itself: how far its part of the model and its audit log went. */
export function writePartResult(
  { audit, digest, directory, events }: RoleSession,
  server: number,
  { reason, version }: Pick<TrainedRun, 'reason' | 'version'>,
): void {
  const path = join(directory, resultName(server))
  const job = Buffer.from(digest).toString('hex')
  writeJson(path, { job, server, steps: version, interrupted: reason === 'stopped', audit: audit?.head ?? null })
  events({ kind: 'saved', what: 'result', path, step: version })
}

export function printSummary(output: Output, directory: string): void {
  const result = JSON.parse(readFileSync(join(directory, 'result.json'), 'utf8')) as RunResult
  if (result.dataSource.includes('synthetic')) output.write(syntheticNotices[result.workload])
  if (result.platform === 'simulated') output.write(simulatedNotice)
  output.write(
    `${result.steps} updates, ${result.examples} examples in ${result.seconds.toFixed(1)} s ` +
      `(${result.examplesPerSecond.toFixed(0)} examples/s), ${result.mode}, ${result.engine}\n`,
  )
  if (result.heldOut !== null) output.write(`held out: ${formatScores(result.heldOut)}\n`)
  output.write(`\n${directory}\n`)
  for (const [file, meaning] of contents) {
    if (existsSync(join(directory, file))) output.write(`  ${file.padEnd(28)} ${meaning}\n`)
  }
  output.write(`\n${result.interrupted ? interrupted : endings[result.workload]}\n`)
}

const interrupted = 'Interrupted: what was learnt until then is saved.'
const endings: Readonly<Record<RunResult['workload'], string>> = {
  'image-classification': 'Optimization finished.',
  recommendation: 'DLRM training finished.',
}

const simulatedNotice = `
  ************************************************************************
  *  SIMULATED PLATFORM: attestation was real in form only; whoever owns *
  *  this machine could read everything. It is for trials and tests.     *
  ************************************************************************

`

const syntheticNotices: Readonly<Record<RunResult['workload'], string>> = {
  'image-classification': `
  ************************************************************************
  *  SYNTHETIC DATA: these figures say nothing about CIFAR-10. For the   *
  *  real images: cloister data fetch cifar10, or --data DIR.            *
  ************************************************************************

`,
  recommendation: `
  ************************************************************************
  *  SYNTHETIC DATA: the clicks were drawn by our own generator; these   *
  *  figures say nothing about real logs. For yours: --data DIR_OR_TSV.  *
  ************************************************************************

`,
}
