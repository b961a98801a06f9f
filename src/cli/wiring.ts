// SPDX-License-Identifier: Apache-2.0
/** From names in a job to what they mean. To add a workload, optimizer, schedule or strategy: one file and one line here. */
import { createHash } from 'node:crypto'
import type { Job } from '../config/job.ts'
import type { PartitionOptions } from '../config/partition.ts'
import type { Dataset } from '../data/dataset.ts'
import { heldOutShard, type PartitionPlan, type PartitionScheme, partition } from '../data/partition.ts'
import type { Engine } from '../engine/engine.ts'
import type { Aggregator } from '../federation/aggregators/aggregator.ts'
import { mean } from '../federation/aggregators/mean.ts'
import type { FleetLayout } from '../federation/fleet.ts'
import { manifestOf } from '../federation/manifest.ts'
import { ModelState } from '../federation/model-state.ts'
import { adagrad } from '../federation/optimizers/adagrad.ts'
import { adam } from '../federation/optimizers/adam.ts'
import { momentum } from '../federation/optimizers/momentum.ts'
import type { Optimizer } from '../federation/optimizers/optimizer.ts'
import { sgd } from '../federation/optimizers/sgd.ts'
import { yogi } from '../federation/optimizers/yogi.ts'
import { manifestOfServer, place } from '../federation/placement.ts'
import type { RestoredModel } from '../federation/saved-state.ts'
import { constant, cosine, type Schedule, steps, warmUp } from '../federation/schedules.ts'
import { asynchronous } from '../federation/strategies/asynchronous.ts'
import { following } from '../federation/strategies/following.ts'
import type { Contribution, Strategy } from '../federation/strategies/strategy.ts'
import { synchronous } from '../federation/strategies/synchronous.ts'
import type { Model } from '../models/model.ts'
import { imageClassification } from './workloads/image-classification.ts'
import { recommendation } from './workloads/recommendation.ts'
import type { OpenedData, Workload } from './workloads/workload.ts'

export function workloadOf(job: Job): Workload {
  return job.workload === 'image-classification' ? imageClassification(job) : recommendation(job)
}

export function createSchedule({ training }: Job): Schedule {
  const { learningRate: options, updates } = training
  const after = (): Schedule => {
    switch (options.schedule) {
      case 'constant':
        return constant(options.rate)
      case 'step':
        return steps(options)
      case 'cosine':
        return cosine({ ...options, updates })
    }
  }
  return options.warmUpUpdates === 0 ? after() : warmUp({ updates: options.warmUpUpdates }, after())
}

function createOptimizer({ training: { optimizer } }: Job): Optimizer {
  switch (optimizer.name) {
    case 'sgd':
      return sgd()
    case 'momentum':
      return momentum(optimizer)
    case 'adagrad':
      return adagrad(optimizer)
    case 'adam':
      return adam(optimizer)
    case 'yogi':
      return yogi(optimizer)
  }
}

const aggregator: Aggregator = mean

export function layoutOf(job: Job, model: Model): FleetLayout {
  const manifest = manifestOf(model.variables)
  const { tables } = model
  return { manifest, tables, placement: place(manifest, tables, job.servers), transfer: job.training.transfer }
}

export interface ModelPart {
  readonly layout: FleetLayout
  readonly server: number
  readonly saved: RestoredModel | undefined
}

/** One server's part: as saved; else initial values from the job's seed, no slots, version 0. */
export function createModelState(
  engine: Engine,
  job: Job,
  model: Model,
  { layout, server, saved }: ModelPart,
): ModelState {
  const manifest = manifestOfServer(layout.manifest, layout.placement, server)
  const initial = (): ReadonlyMap<string, Float32Array> => {
    const all = model.initialValues(job.seed)
    return new Map(manifest.map(({ name }) => [name, all.get(name) as Float32Array]))
  }
  const { maximumRows = Number.POSITIVE_INFINITY } = workloadOf(job)
  return new ModelState({
    engine,
    manifest,
    optimizer: createOptimizer(job),
    aggregator,
    weightDecay: job.training.weightDecay,
    transfer: layout.transfer,
    tables: { specs: model.tables, seed: job.seed, maximumRows },
    ...(saved ?? { values: initial() }),
  })
}

export function createStrategy<C extends Contribution>(job: Job, server: number): Strategy<C> {
  const { mode } = job.training
  const { workers } = job
  if (mode.name === 'synchronous' && server > 0) return following()
  switch (mode.name) {
    case 'asynchronous': {
      const { maximumStaleness, stalenessExponent } = mode
      return asynchronous({
        stalenessExponent,
        ...(maximumStaleness !== undefined && { maxStaleness: maximumStaleness }),
      })
    }
    case 'synchronous':
      return synchronous({
        take: mode.quorum ?? workers,
        minimumWorkers: mode.minimumWorkers,
        ...(mode.deadlineMs !== undefined && { deadlineMs: mode.deadlineMs }),
      })
  }
}

export interface Share {
  /** Indices into the training and the held-out examples. */
  readonly training: Uint32Array
  /** Of any data shard; with `own`, only of the worker's. */
  readonly shardOf: (shard: number) => Uint32Array
  readonly heldOut: Uint32Array
  /** SHA-256 of what all workers must have partitioned alike. */
  readonly planDigest: Uint8Array
  /** Written down beside the results; undefined where every owner's data is its shard. */
  readonly plan: PartitionPlan | undefined
}

/** What worker `index` of the job trains and scores on. */
export async function shareOf(job: Job, data: OpenedData, index: number): Promise<Share> {
  const scheme = job.data.partition
  if (scheme.scheme === 'own') {
    // Nobody knows another's data: there is nothing to agree on but that.
    const planDigest = createHash('sha256').update('cloister partition: own').digest()
    const whole = (dataset: Dataset) => Uint32Array.from({ length: dataset.examples }, (_, example) => example)
    const training = whole(data.training)
    return { training, shardOf: () => training, heldOut: whole(data.heldOut), planDigest, plan: undefined }
  }
  const { plan, shards } = partition(await data.training.labels(), {
    scheme: partitionScheme(scheme),
    seed: job.seed,
    workers: job.workers,
  })
  const training = shards[index]
  if (training === undefined) throw new RangeError(`worker ${index} of ${job.workers}`)
  const heldOut = heldOutShard(data.heldOut.examples, index, job.workers)
  const shardOf = (shard: number): Uint32Array => shards[shard]!
  return { training, shardOf, heldOut, planDigest: Buffer.from(plan.digest, 'hex'), plan }
}

function partitionScheme(options: Exclude<PartitionOptions, { scheme: 'own' }>): PartitionScheme {
  const { scheme: kind, ...rest } = options
  return { kind, ...rest } as PartitionScheme
}
