// SPDX-License-Identifier: Apache-2.0
/** A party's side of a job: its data, its share of it, and the compiled step. Used by worker and train alike. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { evaluationBatches, TrainingBatches } from '../data/batches.ts'
import { compileEvaluation, compileTraining } from '../engine/step.ts'
import { manifestOf } from '../federation/manifest.ts'
import type { PreparationWorker } from '../federation/preparation.ts'
import { Training } from '../federation/training.ts'
import type { Model } from '../models/model.ts'
import { cacheDirectory } from './context.ts'
import { saveGraph } from './model-files.ts'
import type { RoleSession } from './role.ts'
import { writeJson } from './run-directory.ts'
import { UsageError } from './usage-error.ts'
import { type Share, shareOf, workloadOf } from './wiring.ts'
import type { OpenOptions } from './workloads/workload.ts'

/** Held-out examples scored at once; more than training takes, since nothing is kept for a gradient. */
const evaluationBatchSize = 500

export interface OpenedTraining {
  readonly model: Model
  readonly training: Training
  readonly share: Share
  readonly dataSource: string
  /** What this party's data contributes before training, and takes. */
  readonly preparation: PreparationWorker | undefined
  close(): Promise<void>
}

export async function openTraining(
  session: RoleSession,
  index: number,
  identities: OpenOptions['identities'],
): Promise<OpenedTraining> {
  const { job, deployment, directory, engine, events, signal } = session
  if (deployment.data.directory === undefined) {
    throw new UsageError('data-directory-missing', 'expected a directory with the data, got none', {
      hint: 'Give it with --data DIR, CLOISTER_DATA or data.directory; `cloister data fetch cifar10` downloads CIFAR-10.',
    })
  }
  const workload = workloadOf(job)
  const data = await workload.open(deployment.data.directory, {
    cacheDirectory: cacheDirectory(session.context.env),
    events,
    signal,
    identities,
  })
  try {
    const share = await shareOf(job, data, index)
    const model = workload.createModel()
    const { batchSize, transfer } = job.training
    events({ kind: 'progress', activity: 'trace', done: 0, total: 1 })
    const step = compileTraining(engine, model, batchSize, transfer)
    const evaluation = compileEvaluation(engine, model, evaluationBatchSize)
    events({ kind: 'progress', activity: 'trace', done: 1, total: 1 })
    if (index === 0) {
      if (share.plan !== undefined) writeJson(join(directory, 'partition.json'), share.plan)
      await saveGraph(session, step.graphDef())
    }
    const batches = new TrainingBatches(data.training, { shardOf: share.shardOf, batchSize, seed: job.seed })
    const training = new Training({
      manifest: manifestOf(model.variables),
      tables: model.tables,
      step,
      evaluation,
      batch: (task) => batches.read(task),
      heldOut: () => evaluationBatches(data.heldOut, { shard: share.heldOut, batchSize: evaluationBatchSize, signal }),
      seed: (shard) => stepSeed(job.seed, shard),
    })
    return {
      model,
      training,
      share,
      dataSource: data.dataSource,
      preparation: data.preparation?.(share.training),
      async close() {
        await data.close()
        await step.close()
        await evaluation.close()
      },
    }
  } catch (error) {
    await data.close()
    throw error
  }
}

/** Each data shard is augmented with random numbers of its own: int32, from the job's seed and the shard's number. */
function stepSeed(jobSeed: number, shard: number): number {
  return createHash('sha256').update(`cloister step seed ${jobSeed} ${shard}`).digest().readInt32LE()
}
