// SPDX-License-Identifier: Apache-2.0
/** From names in a job to what they mean. To add a model, optimizer, schedule or strategy: one file and one line here. */
import { createHash } from 'node:crypto'
import type { Job, PartitionOptions } from '../config/job.ts'
import type { Dataset } from '../data/dataset.ts'
import { type DataSource, identifyImages, openHeldOut, openTraining } from '../data/locate.ts'
import { heldOutShard, type PartitionPlan, type PartitionScheme, partition } from '../data/partition.ts'
import type { Engine } from '../engine/engine.ts'
import type { Aggregator } from '../federation/aggregators/aggregator.ts'
import { mean } from '../federation/aggregators/mean.ts'
import { manifestOf } from '../federation/manifest.ts'
import { ModelState } from '../federation/model-state.ts'
import { adagrad } from '../federation/optimizers/adagrad.ts'
import { adam } from '../federation/optimizers/adam.ts'
import { momentum } from '../federation/optimizers/momentum.ts'
import type { Optimizer } from '../federation/optimizers/optimizer.ts'
import { sgd } from '../federation/optimizers/sgd.ts'
import { yogi } from '../federation/optimizers/yogi.ts'
import { constant, cosine, type Schedule, steps, warmUp } from '../federation/schedules.ts'
import { asynchronous } from '../federation/strategies/asynchronous.ts'
import type { Contribution, Strategy } from '../federation/strategies/strategy.ts'
import { synchronous } from '../federation/strategies/synchronous.ts'
import { referenceAugmentation } from '../models/augment.ts'
import { imageClassification } from '../models/image-classification.ts'
import type { Model } from '../models/model.ts'
import { bottleneckResNet, cifarResNet } from '../models/resnet.ts'
import type { LoadedModel } from '../storage/model-files.ts'

export function createModel(job: Job): Model {
  const { model, data } = job
  const network =
    model.name === 'resnet'
      ? cifarResNet({ depth: model.layers, version: model.version, imageSize: data.crop })
      : bottleneckResNet({ depth: model.layers, imageSize: data.crop })
  // Crops of the whole image need room to move: four pixels on each side, as in the paper.
  const padding = data.crop === 32 ? 4 : 0
  const augmentation = data.augment ? { ...referenceAugmentation, padding } : undefined
  return imageClassification({ name: network.name, network, augmentation })
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

/** As saved; else initial values from the job's seed, no slots, version 0. */
export function createModelState(engine: Engine, job: Job, model: Model, saved?: LoadedModel): ModelState {
  return new ModelState({
    engine,
    manifest: manifestOf(model.variables),
    optimizer: createOptimizer(job),
    aggregator,
    weightDecay: job.training.weightDecay,
    ...(saved ?? { values: model.initialValues(job.seed) }),
  })
}

export function createStrategy<C extends Contribution>({ training: { mode }, workers }: Job): Strategy<C> {
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
        deadlineMs: mode.deadlineMs,
      })
  }
}

export interface OpenedData {
  readonly training: Dataset
  readonly heldOut: Dataset
  readonly dataSource: DataSource
  close(): Promise<void>
}

export async function openData(directory: string): Promise<OpenedData> {
  const files = await identifyImages(directory)
  const training = await openTraining(files)
  const heldOut = await openHeldOut(files).catch(async (error: unknown) => {
    await training.close()
    throw error
  })
  return {
    training,
    heldOut,
    dataSource: files.dataSource,
    async close() {
      await Promise.all([training.close(), heldOut.close()])
    },
  }
}

export interface Share {
  /** Indices into the training and the held-out examples. */
  readonly training: Uint32Array
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
    return { training: whole(data.training), heldOut: whole(data.heldOut), planDigest, plan: undefined }
  }
  const { plan, shards } = partition(await data.training.labels(), {
    scheme: partitionScheme(scheme),
    seed: job.seed,
    workers: job.workers,
  })
  const training = shards[index]
  if (training === undefined) throw new RangeError(`worker ${index} of ${job.workers}`)
  const heldOut = heldOutShard(data.heldOut.examples, index, job.workers)
  return { training, heldOut, planDigest: Buffer.from(plan.digest, 'hex'), plan }
}

function partitionScheme(options: Exclude<PartitionOptions, { scheme: 'own' }>): PartitionScheme {
  const { scheme: kind, ...rest } = options
  return { kind, ...rest } as PartitionScheme
}
