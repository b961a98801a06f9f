// SPDX-License-Identifier: Apache-2.0
/**
 * Who holds which examples, where one data set stands for many owners' data. A partition is a function of the labels, the
 * scheme, the seed and the number of workers; its plan is written down, so that anybody with the data can make the same shards
 * and see by the digest that they are the same. Every example is in exactly one shard.
 */
import { strict as assert } from 'node:assert'
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import * as v from 'valibot'
import { RandomStream } from '../models/philox.ts'
import { DataError } from './dataset.ts'

const schemeSchema = v.variant('kind', [
  /** In the order of the data, sizes equal within one: whole days where there are as many days as workers. */
  v.strictObject({ kind: v.literal('contiguous') }),
  /** Shuffled, sizes equal within one. */
  v.strictObject({ kind: v.literal('iid') }),
  /**
   * Each worker's mixture of classes is drawn from a Dirichlet distribution with parameter α times the mixture of all (Hsu, Qi,
   * Brown 2019, §3), sizes equal within one. Workers draw examples in turn; a class that is used up is drawn no more.
   */
  v.strictObject({ kind: v.literal('dirichlet'), alpha: v.pipe(v.number(), v.finite(), v.gtValue(0)) }),
  /**
   * Each class is cut among the workers in proportions drawn from a symmetric Dirichlet distribution (Yurochkin et al. 2019, §4;
   * what NVFlare and Flower mean by α). Sizes differ. Milder than `dirichlet` with the same α.
   */
  v.strictObject({ kind: v.literal('dirichlet-by-class'), alpha: v.pipe(v.number(), v.finite(), v.gtValue(0)) }),
  /** Sorted by label, cut into equal pieces, each worker gets so many of them (McMahan et al. 2017, §3). */
  v.strictObject({ kind: v.literal('by-label'), piecesPerWorker: v.pipe(v.number(), v.integer(), v.minValue(1)) }),
  /** Shuffled, sizes in these proportions, one a worker. */
  v.strictObject({
    kind: v.literal('by-size'),
    proportions: v.pipe(v.array(v.pipe(v.number(), v.finite(), v.gtValue(0))), v.minLength(1)),
  }),
])

export type PartitionScheme = v.InferOutput<typeof schemeSchema>

const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))

const planSchema = v.strictObject({
  format: v.literal('cloister-partition-1'),
  scheme: schemeSchema,
  seed: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  workers: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(100_000)),
  examples: count,
  /** SHA-256 of the labels, one byte each: which data set this is a plan for. */
  labelsDigest: digest,
  shards: v.array(v.strictObject({ examples: count, labels: v.array(count) })),
  /** SHA-256 over each shard in turn: its length and its indices, ascending, as 32-bit little-endian numbers. */
  digest,
})

export type PartitionPlan = v.InferOutput<typeof planSchema>

export interface Partition {
  readonly plan: PartitionPlan
  /** Ascending indices, one list a worker. */
  readonly shards: readonly Uint32Array[]
}

export interface PartitionOptions {
  readonly scheme: PartitionScheme
  readonly seed: number
  readonly workers: number
}

export function partition(labels: Uint8Array, { scheme, seed, workers }: PartitionOptions): Partition {
  assert(Number.isInteger(workers) && workers >= 1, `${workers} workers`)
  const shards = assign(labels, scheme, new RandomStream(seed, `partition ${scheme.kind}`), workers)
  for (const [worker, shard] of shards.entries()) {
    if (shard.length === 0) {
      throw new DataError(
        'shard-empty',
        `expected at least one example for each of ${workers} workers, got none for worker ${worker} (${scheme.kind}, ` +
          `${labels.length} examples)`,
        { hint: 'use fewer workers, more data or a more even scheme' },
      )
    }
    shard.sort()
  }
  const classes = labels.reduce((most, label) => Math.max(most, label + 1), 0)
  const plan: PartitionPlan = {
    format: 'cloister-partition-1',
    scheme,
    seed,
    workers,
    examples: labels.length,
    labelsDigest: createHash('sha256').update(labels).digest('hex'),
    shards: shards.map((shard) => {
      const counts = new Array<number>(classes).fill(0)
      for (const example of shard) counts[labels[example]!]!++
      return { examples: shard.length, labels: counts }
    }),
    digest: digestOf(shards),
  }
  return { plan, shards }
}

/** The shards of a plan that was written down: made anew, and refused unless they come out the same. */
export function partitionFromPlan(labels: Uint8Array, written: unknown): Partition {
  const parsed = v.safeParse(planSchema, written)
  if (!parsed.success) {
    const [issue] = parsed.issues
    throw new DataError('partition-invalid', `partition plan, ${v.getDotPath(issue) ?? 'whole'}: ${issue.message}`, {
      hint: 'use a plan as written by Cloister, unchanged',
    })
  }
  const plan = parsed.output
  const again = partition(labels, plan)
  for (const key of ['examples', 'labelsDigest', 'digest', 'shards'] as const) {
    if (!isDeepStrictEqual(again.plan[key], plan[key])) {
      throw new DataError(
        'partition-mismatch',
        `partition plan: expected ${key} ${JSON.stringify(plan[key])}, got ${JSON.stringify(again.plan[key])} from the ` +
          'data at hand',
        { hint: 'the plan was made for other data, or was changed: use the same files, or make a new plan' },
      )
    }
  }
  return again
}

/** The part of `examples` held-out examples that worker `worker` of `workers` scores. */
export function heldOutShard(examples: number, worker: number, workers: number): Uint32Array {
  const first = Math.floor((examples * worker) / workers)
  const end = Math.floor((examples * (worker + 1)) / workers)
  return Uint32Array.from({ length: end - first }, (_, index) => first + index)
}

function assign(labels: Uint8Array, scheme: PartitionScheme, random: RandomStream, workers: number): Uint32Array[] {
  const even = new Array<number>(workers).fill(1)
  switch (scheme.kind) {
    case 'contiguous':
      return cut(
        Uint32Array.from({ length: labels.length }, (_, example) => example),
        even,
      )
    case 'iid':
      return cut(random.permutation(labels.length), even)
    case 'by-size':
      if (scheme.proportions.length !== workers) {
        throw new DataError(
          'partition-invalid',
          `expected one proportion for each of ${workers} workers, got ${scheme.proportions.length}`,
          { hint: 'give as many proportions as workers' },
        )
      }
      return cut(random.permutation(labels.length), scheme.proportions)
    case 'by-label': {
      // Shuffled first, so that which examples of a class fall into a piece depends on the seed.
      const sorted = random.permutation(labels.length).sort((a, b) => labels[a]! - labels[b]!)
      const pieces = cut(sorted, new Array<number>(workers * scheme.piecesPerWorker).fill(1))
      const shuffled = Array.from(random.permutation(pieces.length), (piece) => pieces[piece]!)
      return Array.from({ length: workers }, (_, worker) => {
        const own = shuffled.slice(worker * scheme.piecesPerWorker, (worker + 1) * scheme.piecesPerWorker)
        return Uint32Array.from(own.flatMap((piece) => [...piece]))
      })
    }
    case 'dirichlet':
      return drawFromMixtures(labels, scheme.alpha, random, workers)
    case 'dirichlet-by-class':
      return cutClasses(labels, scheme.alpha, random, workers)
  }
}

/** Consecutive pieces with sizes in these proportions, rounded so that nothing is left over. */
function cut(order: Uint32Array, proportions: readonly number[]): Uint32Array[] {
  const total = proportions.reduce((sum, proportion) => sum + proportion, 0)
  let cumulated = 0
  let first = 0
  return proportions.map((proportion, index) => {
    cumulated += proportion
    const end = index === proportions.length - 1 ? order.length : Math.round((order.length * cumulated) / total)
    const piece = order.slice(first, end)
    first = end
    return piece
  })
}

/** The examples of each class, in random order. */
function byClass(labels: Uint8Array, random: RandomStream): number[][] {
  const classes: number[][] = []
  for (const example of random.permutation(labels.length)) {
    const label = labels[example]!
    while (classes.length <= label) classes.push([])
    classes[label]!.push(example)
  }
  return classes
}

/** Drawn again while some worker has nothing, as often as is reasonable. */
function cutClasses(labels: Uint8Array, alpha: number, random: RandomStream, workers: number): Uint32Array[] {
  const symmetric = new Array<number>(workers).fill(alpha)
  const classes = byClass(labels, random).map((examples) => Uint32Array.from(examples))
  let shards: Uint32Array[] = []
  for (let attempt = 0; attempt < 100; attempt++) {
    const pieces = classes.map((examples) => cut(examples, dirichlet(symmetric, random)))
    shards = symmetric.map((_, worker) => Uint32Array.from(pieces.flatMap((piece) => [...piece[worker]!])))
    if (shards.every((shard) => shard.length > 0)) break
  }
  return shards
}

function drawFromMixtures(labels: Uint8Array, alpha: number, random: RandomStream, workers: number): Uint32Array[] {
  const unused = byClass(labels, random)
  const prior = unused.map((examples) => examples.length / labels.length)
  const mixtures = Array.from({ length: workers }, () =>
    dirichlet(
      prior.map((share) => alpha * share),
      random,
    ),
  )
  const shards = mixtures.map((): number[] => [])
  for (let drawn = 0; drawn < labels.length; drawn++) {
    const worker = drawn % workers
    const left = mixtures[worker]!.map((share, label) => (unused[label]!.length > 0 ? share : 0))
    // A mixture may have lost all its classes: then what is left is drawn as it comes.
    const weights = left.some((share) => share > 0) ? left : unused.map((examples) => examples.length)
    shards[worker]!.push(unused[choose(weights, random)]!.pop()!)
  }
  return shards.map((shard) => Uint32Array.from(shard))
}

function choose(weights: readonly number[], random: RandomStream): number {
  let rest = random.uniform() * weights.reduce((sum, weight) => sum + weight, 0)
  let chosen = -1
  for (const [index, weight] of weights.entries()) {
    if (weight === 0) continue
    chosen = index
    rest -= weight
    if (rest < 0) break
  }
  return chosen
}

/** Normalised gamma variates, by their logarithms: with a small parameter most are too small for a number. */
function dirichlet(parameters: readonly number[], random: RandomStream): number[] {
  const logs = parameters.map((parameter) => (parameter > 0 ? logGamma(parameter, random) : Number.NEGATIVE_INFINITY))
  const greatest = Math.max(...logs)
  const shares = logs.map((log) => Math.exp(log - greatest))
  const sum = shares.reduce((total, share) => total + share, 0)
  return shares.map((share) => share / sum)
}

/** Logarithm of a gamma variate of this shape: Marsaglia and Tsang 2000, with their U^(1/a) step for shapes below 1. */
function logGamma(shape: number, random: RandomStream): number {
  if (shape < 1) return logGamma(shape + 1, random) + Math.log(random.uniform()) / shape
  const d = shape - 1 / 3
  const c = 1 / Math.sqrt(9 * d)
  while (true) {
    const x = random.normal()
    const root = 1 + c * x
    if (root <= 0) continue
    const cube = root ** 3
    if (Math.log(random.uniform()) < 0.5 * x * x + d - d * cube + d * Math.log(cube)) return Math.log(d * cube)
  }
}

function digestOf(shards: readonly Uint32Array[]): string {
  const hash = createHash('sha256')
  for (const shard of shards) {
    const bytes = new DataView(new ArrayBuffer(4 * (shard.length + 1)))
    bytes.setUint32(0, shard.length, true)
    for (const [place, example] of shard.entries()) bytes.setUint32(4 * (place + 1), example, true)
    hash.update(bytes)
  }
  return hash.digest('hex')
}
