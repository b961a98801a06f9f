import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { RandomStream } from '../models/philox.ts'
import { heldOutShard, type PartitionScheme, partition, partitionFromPlan } from './partition.ts'

const schemes: fc.Arbitrary<(workers: number) => PartitionScheme> = fc.oneof(
  fc.constant(() => ({ kind: 'iid' }) as const),
  fc.double({ min: 0.001, max: 1000, noNaN: true }).map((alpha) => () => ({ kind: 'dirichlet', alpha }) as const),
  // Not so small that some worker of eight is likely to get nothing.
  fc
    .double({ min: 0.3, max: 1000, noNaN: true })
    .map((alpha) => () => ({ kind: 'dirichlet-by-class', alpha }) as const),
  fc.integer({ min: 1, max: 3 }).map((piecesPerWorker) => () => ({ kind: 'by-label', piecesPerWorker }) as const),
  fc
    .array(fc.integer({ min: 1, max: 4 }), { minLength: 8, maxLength: 8 })
    .map(
      (proportions) => (workers: number) => ({ kind: 'by-size', proportions: proportions.slice(0, workers) }) as const,
    ),
)

/** n labels of so many classes, unequally often, in no order. */
function labelsOf(examples: number, classes: number, seed: number): Uint8Array {
  const random = new RandomStream(seed, 'labels')
  return Uint8Array.from({ length: examples }, () => Math.min(random.below(classes), random.below(classes)))
}

const balanced = Uint8Array.from({ length: 5000 }, (_, index) => (index * 7) % 10)

test('every example is in exactly one shard, and the plan says what is where', () => {
  fc.assert(
    fc.property(
      schemes,
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 60, max: 300 }),
      fc.integer({ min: 1, max: 10 }),
      fc.nat(),
      (schemeFor, workers, examples, classes, seed) => {
        const labels = labelsOf(examples, classes, seed)
        const { plan, shards } = partition(labels, { scheme: schemeFor(workers), seed, workers })
        expect(shards).toHaveLength(workers)
        const all = shards.flatMap((shard) => [...shard])
        expect(all.sort((a, b) => a - b)).toEqual(Array.from({ length: examples }, (_, index) => index))
        shards.forEach((shard, worker) => {
          const counts = plan.shards[worker]!.labels.map(() => 0)
          for (const example of shard) counts[labels[example]!]!++
          expect(plan.shards[worker]).toEqual({ examples: shard.length, labels: counts })
        })
        // From the plan as it lies in a file, the same shards.
        const again = partitionFromPlan(labels, JSON.parse(JSON.stringify(plan)))
        expect(again).toEqual({ plan, shards })
      },
    ),
  )
})

describe('schemes', () => {
  const sizes = (scheme: PartitionScheme, workers: number, seed = 1) =>
    partition(balanced, { scheme, seed, workers }).plan.shards.map(({ examples }) => examples)

  /** Mean over workers of the share of their commonest class: 0.1 when even, 1 when each holds one class. */
  const concentration = (scheme: PartitionScheme, workers = 10) => {
    const { plan } = partition(balanced, { scheme, seed: 3, workers })
    const shares = plan.shards.map(({ examples, labels }) => Math.max(...labels) / examples)
    return shares.reduce((sum, share) => sum + share, 0) / workers
  }

  test('iid: equal sizes, even classes, another partition for another seed', () => {
    expect(sizes({ kind: 'iid' }, 3)).toEqual([1667, 1666, 1667])
    expect(concentration({ kind: 'iid' })).toBeLessThan(0.15)
    const digests = [1, 2, 1].map(
      (seed) => partition(balanced, { scheme: { kind: 'iid' }, seed, workers: 2 }).plan.digest,
    )
    expect(digests[0]).toBe(digests[2])
    expect(digests[0]).not.toBe(digests[1])
  })

  test('by size: the proportions asked for', () => {
    expect(sizes({ kind: 'by-size', proportions: [1, 3, 6] }, 3)).toEqual([500, 1500, 3000])
    expect(() => sizes({ kind: 'by-size', proportions: [1, 1] }, 3)).toThrow(
      expect.objectContaining({ code: 'partition-invalid' }),
    )
  })

  test('by label: so many pieces, so few labels', () => {
    const { plan } = partition(balanced, { scheme: { kind: 'by-label', piecesPerWorker: 2 }, seed: 9, workers: 10 })
    for (const { examples, labels } of plan.shards) {
      expect(examples).toBe(500)
      expect(labels.filter((count) => count > 0).length).toBeLessThanOrEqual(2)
    }
    expect(plan.shards[0]!.labels).not.toEqual(plan.shards[1]!.labels)
  })

  test('dirichlet: equal sizes; the smaller α, the fewer classes', () => {
    expect(sizes({ kind: 'dirichlet', alpha: 0.5 }, 3)).toEqual([1667, 1667, 1666])
    const [even, mild, strong] = [1000, 5, 0.1].map((alpha) => concentration({ kind: 'dirichlet', alpha }))
    expect(even).toBeLessThan(0.15)
    expect(mild).toBeGreaterThan(even! + 0.05)
    expect(strong).toBeGreaterThan(mild! + 0.1)
  })

  test('dirichlet: the variance of a class share is that of the distribution', () => {
    // Var = p(1 − p)/(α + 1) with total parameter α and p = 0.1, plus p(1 − p)/n of drawing n examples. Each worker takes few
    // enough that no class is used up.
    const labels = Uint8Array.from({ length: 50_000 }, (_, index) => index % 10)
    const [alpha, workers] = [4, 500]
    const { plan } = partition(labels, { scheme: { kind: 'dirichlet', alpha }, seed: 5, workers })
    const shares = plan.shards.flatMap(({ examples, labels }) => labels.map((count) => count / examples))
    const variance = shares.reduce((sum, share) => sum + (share - 0.1) ** 2, 0) / shares.length
    const expected = (0.1 * 0.9) / (alpha + 1)
    expect(variance / expected).toBeGreaterThan(0.85)
    expect(variance / expected).toBeLessThan(1.2)
  })

  test('dirichlet by class: the variance of a worker’s share of a class is that of the distribution', () => {
    const labels = Uint8Array.from({ length: 100_000 }, (_, index) => index % 200)
    const [alpha, workers] = [0.5, 5]
    const { plan } = partition(labels, { scheme: { kind: 'dirichlet-by-class', alpha }, seed: 5, workers })
    const shares = plan.shards.flatMap(({ labels }) => labels.map((count) => count / 500))
    const variance = shares.reduce((sum, share) => sum + (share - 1 / workers) ** 2, 0) / shares.length
    // p(1 − p)/(1 + total parameter), p = 1/5.
    const expected = (0.2 * 0.8) / (1 + alpha * workers)
    expect(variance / expected).toBeGreaterThan(0.85)
    expect(variance / expected).toBeLessThan(1.15)
  })

  test('more workers than examples: an empty shard is refused', () => {
    const few = Uint8Array.of(0, 1)
    const each: PartitionScheme[] = [
      { kind: 'iid' },
      { kind: 'dirichlet', alpha: 1 },
      { kind: 'dirichlet-by-class', alpha: 1 },
      { kind: 'by-label', piecesPerWorker: 1 },
      { kind: 'by-size', proportions: [1, 1, 1] },
    ]
    for (const scheme of each) {
      expect(() => partition(few, { scheme, seed: 1, workers: 3 })).toThrow(
        expect.objectContaining({ code: 'shard-empty', message: expect.stringContaining('3 workers') }),
      )
    }
    expect(() => partition(new Uint8Array(), { scheme: { kind: 'iid' }, seed: 1, workers: 1 })).toThrow(
      expect.objectContaining({ code: 'shard-empty' }),
    )
  })
})

describe('written plans', () => {
  const { plan } = partition(balanced, { scheme: { kind: 'dirichlet', alpha: 0.5 }, seed: 4, workers: 4 })

  test.each([
    ['null', null],
    ['another format', { ...plan, format: 'cloister-partition-2' }],
    ['an unknown key', { ...plan, comment: '' }],
    ['a scheme with an unknown key', { ...plan, scheme: { kind: 'iid', alpha: 1 } }],
    ['a negative α', { ...plan, scheme: { kind: 'dirichlet', alpha: -1 } }],
    ['a seed beyond exact numbers', { ...plan, seed: 2 ** 60 }],
    ['no workers', { ...plan, workers: 0 }],
    ['a short digest', { ...plan, digest: 'abcd' }],
  ])('%s is refused', (_, written) => {
    expect(() => partitionFromPlan(balanced, written)).toThrow(expect.objectContaining({ code: 'partition-invalid' }))
  })

  test('other data or a changed plan is refused', () => {
    const changed = balanced.slice()
    changed[17] = (changed[17]! + 1) % 10
    for (const [labels, written] of [
      [changed, plan],
      [balanced.subarray(1), plan],
      [balanced, { ...plan, seed: 5 }],
      [balanced, { ...plan, workers: 5 }],
      [balanced, { ...plan, digest: '0'.repeat(64) }],
      [balanced, { ...plan, shards: plan.shards.toReversed() }],
    ] as const) {
      expect(() => partitionFromPlan(labels, written)).toThrow(expect.objectContaining({ code: 'partition-mismatch' }))
    }
  })
})

test('held-out examples are split without gap or overlap', () => {
  fc.assert(
    fc.property(fc.nat(500), fc.integer({ min: 1, max: 20 }), (examples, workers) => {
      const shards = Array.from({ length: workers }, (_, worker) => heldOutShard(examples, worker, workers))
      expect(shards.flatMap((shard) => [...shard])).toEqual(Array.from({ length: examples }, (_, index) => index))
      const sizes = shards.map((shard) => shard.length)
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1)
    }),
  )
})
