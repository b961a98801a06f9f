// SPDX-License-Identifier: Apache-2.0
/**
 * A job is what all parties agree on: model, data schema, partition, training. Its digest is SHA-256 over its canonical
 * JSON (RFC 8785); every peer states the digest when it connects and is refused on any difference. Nothing that one host
 * decides (paths, addresses, threads) belongs here: that is deployment.ts.
 */
import { createHash } from 'node:crypto'
import canonicalize from 'canonicalize'
import * as v from 'valibot'
import { policySchema } from '../attestation/policy-format.ts'

const count = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 31 - 1))
const countOrZero = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 31 - 1))
const positive = v.pipe(v.number(), v.finite(), v.gtValue(0))
const nonNegative = v.pipe(v.number(), v.finite(), v.minValue(0))
const fraction = v.pipe(v.number(), v.minValue(0), v.maxValue(1))

/** `resnet`: the CIFAR networks of He et al. 2016, 6n+2 layers. `resnet-bottleneck`: the true ResNet-50/101, CIFAR stem. */
const model = v.variant('name', [
  v.strictObject({
    name: v.literal('resnet'),
    layers: v.pipe(
      count,
      v.maxValue(1202),
      v.check(
        (layers) => layers >= 8 && (layers - 2) % 6 === 0,
        'expected 6n+2 layers (8, 14, 20, 32, 44, 56, 110, …)',
      ),
    ),
    version: v.optional(v.picklist([1, 2]), 2),
  }),
  v.strictObject({ name: v.literal('resnet-bottleneck'), layers: v.picklist([50, 101]) }),
])

/** Learning rate as a function of the number of updates applied. */
const learningRate = v.variant('schedule', [
  v.strictObject({ schedule: v.literal('constant'), rate: positive, warmUpUpdates: v.optional(countOrZero, 0) }),
  v.strictObject({
    schedule: v.literal('step'),
    rate: positive,
    /** The rate is multiplied by `factor` at each of these updates. */
    boundaries: v.array(count),
    factor: v.optional(positive, 0.1),
    warmUpUpdates: v.optional(countOrZero, 0),
  }),
  v.strictObject({
    schedule: v.literal('cosine'),
    rate: positive,
    finalRate: v.optional(nonNegative, 0),
    warmUpUpdates: v.optional(countOrZero, 0),
  }),
])

const optimizer = v.variant('name', [
  v.strictObject({ name: v.literal('sgd') }),
  v.strictObject({ name: v.literal('momentum'), momentum: v.optional(fraction, 0.9) }),
  v.strictObject({ name: v.literal('adagrad'), initialAccumulator: v.optional(nonNegative, 0.1) }),
  v.strictObject({
    name: v.literal('adam'),
    beta1: v.optional(fraction, 0.9),
    beta2: v.optional(fraction, 0.999),
    epsilon: v.optional(positive, 1e-7),
  }),
  v.strictObject({
    name: v.literal('yogi'),
    beta1: v.optional(fraction, 0.9),
    beta2: v.optional(fraction, 0.999),
    epsilon: v.optional(positive, 1e-3),
  }),
])

const mode = v.variant('name', [
  v.strictObject({
    name: v.literal('asynchronous'),
    /** Pushes computed on parameters more than this many updates old are refused; no bound when absent. */
    maximumStaleness: v.optional(countOrZero),
    /** The rate of a push of staleness s is divided by (1 + s)^stalenessExponent. */
    stalenessExponent: v.optional(nonNegative, 0),
  }),
  v.strictObject({
    name: v.literal('synchronous'),
    /** How many workers' gradients make an update; all present workers when absent. */
    quorum: v.optional(count),
    /** A round goes on with what it has, `minimumWorkers` at least, so long after its first gradient. */
    deadlineMs: v.optional(count, 60_000),
    minimumWorkers: v.optional(count, 1),
  }),
])

const partition = v.variant('scheme', [
  v.strictObject({ scheme: v.literal('iid') }),
  v.strictObject({ scheme: v.literal('dirichlet'), alpha: positive }),
  v.strictObject({ scheme: v.literal('by-label'), piecesPerWorker: v.optional(count, 2) }),
  v.strictObject({ scheme: v.literal('by-size'), proportions: v.array(positive) }),
  /** Every worker's data directory is its shard, whole: the case of real data owners. */
  v.strictObject({ scheme: v.literal('own') }),
])

export const jobSchema = v.strictObject({
  $schema: v.optional(v.string()),
  workload: v.literal('image-classification'),
  /** Every random choice of the run derives from it: initial values, partition, order, augmentation. */
  seed: v.optional(countOrZero, 1),
  workers: v.pipe(count, v.maxValue(1024)),
  /** Who may take part: server and workers judge each other by it. `cloister simulate` adds its own where it is absent. */
  admission: v.optional(policySchema),
  model,
  data: v.strictObject({
    name: v.literal('cifar-10'),
    /** Side of the square crops in pixels; evaluation takes the centre. */
    crop: v.optional(v.picklist([24, 32]), 24),
    /** Random crop, flip, brightness and contrast while training; without it every image is its centre crop. */
    augment: v.optional(v.boolean(), true),
    partition: v.optional(partition, { scheme: 'iid' }),
  }),
  training: v.strictObject({
    mode: v.optional(mode, { name: 'asynchronous', stalenessExponent: 0 }),
    /** Examples of one worker's step. */
    batchSize: v.pipe(count, v.maxValue(65_536)),
    /** Updates that the server applies before the job is finished. */
    updates: count,
    optimizer: v.optional(optimizer, { name: 'momentum', momentum: 0.9 }),
    learningRate,
    /** λ of λ·w added to the gradient of every variable that is neither batch-norm nor bias. */
    weightDecay: v.optional(nonNegative, 0),
    /** Held-out evaluation after every so many updates, besides the final one; 0: only the final one. */
    evaluateEvery: v.optional(countOrZero, 0),
  }),
})

export type Job = v.InferOutput<typeof jobSchema>
export type ModeOptions = Job['training']['mode']
export type PartitionOptions = Job['data']['partition']

/** SHA-256 over the RFC 8785 form of the job with all defaults filled in, 32 bytes. */
export function jobDigest(job: Job): Uint8Array {
  const { $schema: _, ...agreed } = job
  const text = canonicalize(agreed)
  if (text === undefined) throw new TypeError('a parsed job always has a canonical form')
  return createHash('sha256').update(text).digest()
}
