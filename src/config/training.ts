// SPDX-License-Identifier: Apache-2.0
/** How a job trains: mode, optimizer, schedule, and who must be there. The same for every workload. */
import * as v from 'valibot'
import { count, countOrZero, fraction, nonNegative, positive } from './numbers.ts'

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
    /**
     * A worker takes the parameters of its next step while it computes this one: faster, but every push is staler by a step of all
     * workers, which momentum does not forgive.
     */
    prefetch: v.optional(v.boolean(), false),
  }),
  v.strictObject({
    name: v.literal('synchronous'),
    /** How many workers' gradients make an update; all present workers when absent. */
    quorum: v.optional(count),
    /**
     * A round goes on with what it has, `minimumWorkers` at least, so long after its first gradient; ten times as long as rounds
     * usually take when absent, 10 s at least.
     */
    deadlineMs: v.optional(count),
    minimumWorkers: v.optional(count, 1),
  }),
])

export const trainingSchema = v.strictObject({
  mode: v.optional(mode, { name: 'asynchronous', stalenessExponent: 0, prefetch: false }),
  /**
   * How parameters, rows and gradients travel between server and workers. bfloat16 halves the traffic; the server keeps and updates float32, and
   * scores, statistics, checkpoints and the released model are float32.
   */
  transfer: v.optional(v.picklist(['float32', 'bfloat16']), 'float32'),
  /** Examples of one worker's step. */
  batchSize: v.pipe(count, v.maxValue(65_536)),
  /** Updates that the server applies before the job is finished. */
  updates: count,
  optimizer: v.optional(optimizer, { name: 'momentum', momentum: 0.9 }),
  learningRate,
  /** λ of λ·w added to the gradient of every variable that is neither batch-norm nor bias; embedding rows never decay. */
  weightDecay: v.optional(nonNegative, 0),
  /** Held-out evaluation after every so many updates, besides the final one; 0: only the final one. */
  evaluateEvery: v.optional(countOrZero, 0),
  /** Training begins when so many workers have joined. */
  minimumToStart: v.optional(count, 1),
  /** The data shard of a worker that stays away goes to others; only where every worker can read all shards. */
  moveShards: v.optional(v.strictObject({ afterMs: count })),
})

export type TrainingOptions = v.InferOutput<typeof trainingSchema>
