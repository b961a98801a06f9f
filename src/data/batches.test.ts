import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { evaluationBatches, readAhead, TrainingBatches } from './batches.ts'
import type { Dataset } from './dataset.ts'

/** Images of one number, equal to the example's index; labels its last digit. */
function numbered(examples: number, onRead: (indices: number[]) => void = () => {}): Dataset {
  return {
    name: 'numbered',
    examples,
    schema: { images: { shape: [1], dtype: 'float32' }, labels: { shape: [], dtype: 'int32' } },
    classes: [...'0123456789'],
    labels: async () => Uint8Array.from({ length: examples }, (_, index) => index % 10),
    close: async () => {},
    async read(indices) {
      onRead(Array.from(indices))
      return {
        images: { shape: [indices.length, 1], dtype: 'float32', data: Float32Array.from(indices) },
        labels: { shape: [indices.length], dtype: 'int32', data: Int32Array.from(indices, (index) => index % 10) },
      }
    },
  }
}

const whole = (examples: number) => Uint32Array.from({ length: examples }, (_, index) => index)
/** After everything that goes on without the network or the disk. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 5))

describe('training order', () => {
  interface Order {
    readonly examples: Uint32Array
    readonly batchSize: number
    readonly seed: number
    readonly shard?: number
  }

  /** Examples of the batches from `first` on, one behind the other. */
  const orderOf = ({ examples, batchSize, seed, shard = 0 }: Order, steps: number, first = 0): number[] => {
    const batches = new TrainingBatches(numbered(10_001), { shardOf: () => examples, batchSize, seed })
    return Array.from({ length: steps }, (_, step) => [...batches.examples(shard, first + step)]).flat()
  }

  test('each epoch holds each example of the shard once, whatever the batch size', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(10_000), { minLength: 1, maxLength: 40 }),
        fc.integer({ min: 1, max: 60 }),
        fc.nat(),
        (examples, batchSize, seed) => {
          const shard = Uint32Array.from(examples)
          const order = orderOf({ examples: shard, batchSize, seed }, 2 + Math.ceil((3 * shard.length) / batchSize))
          for (let epoch = 0; epoch < 3; epoch++) {
            const seen = order.slice(epoch * shard.length, (epoch + 1) * shard.length)
            expect(seen.sort((a, b) => a - b)).toEqual([...examples].sort((a, b) => a - b))
          }
        },
      ),
    )
  })

  test('a batch is the same whichever was asked for before', () => {
    const options = { examples: whole(37), batchSize: 8, seed: 3, shard: 1 }
    const order = orderOf(options, 20)
    for (const first of [1, 4, 5, 13]) expect(orderOf(options, 20 - first, first)).toEqual(order.slice(8 * first))
    const batches = new TrainingBatches(numbered(37), { shardOf: () => whole(37), batchSize: 8, seed: 3 })
    fc.assert(
      fc.property(fc.array(fc.nat(19), { minLength: 1, maxLength: 30 }), (positions) => {
        for (const position of positions) {
          expect([...batches.examples(1, position)]).toEqual(order.slice(8 * position, 8 * (position + 1)))
        }
      }),
    )
  })

  test('differs by seed, shard and epoch, and is repeatable', () => {
    const options = { examples: whole(50), batchSize: 50, seed: 3, shard: 1 }
    const order = orderOf(options, 2)
    expect(orderOf(options, 2)).toEqual(order)
    const others = [
      order.slice(50),
      orderOf({ ...options, seed: 4 }, 1),
      orderOf({ ...options, shard: 2 }, 1),
      [...whole(50)],
    ]
    for (const other of others) expect(other).not.toEqual(order.slice(0, 50))
  })
})

test('training batches are the data of that order, of the shard that is asked for', async () => {
  const shards = [Uint32Array.of(3, 14, 15, 92, 65), Uint32Array.of(7, 8, 9)]
  const batches = new TrainingBatches(numbered(100), { shardOf: (shard) => shards[shard]!, batchSize: 4, seed: 8 })
  for (const shard of [0, 1, 0]) {
    for (const position of [5, 0, 2]) {
      const { images } = await batches.read({ shard, position })
      expect([...images!.data]).toEqual([...batches.examples(shard, position)])
      expect([...images!.data].every((example) => shards[shard]!.includes(example))).toBe(true)
    }
  }
})

test('evaluation batches hold each example once, and rows that count for nothing', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 50 }), async (examples, batchSize) => {
      const seen: number[] = []
      for await (const { images, labels } of evaluationBatches(numbered(99), { shard: whole(examples), batchSize })) {
        expect([images!.shape, labels!.shape]).toEqual([[batchSize, 1], [batchSize]])
        expect(images!.data).toHaveLength(batchSize)
        labels!.data.forEach((label, row) => {
          if (label === -1) expect(images!.data[row]).toBe(0)
          else seen.push(images!.data[row]!)
        })
      }
      expect(seen).toEqual([...whole(examples)])
    }),
    { numRuns: 30 },
  )
})

test('an empty shard is refused', () => {
  const empty = { shard: new Uint32Array(), batchSize: 4 }
  const training = new TrainingBatches(numbered(10), { shardOf: () => empty.shard, batchSize: 4, seed: 1 })
  expect(() => training.examples(0, 0)).toThrow(expect.objectContaining({ code: 'shard-empty' }))
  expect(() => evaluationBatches(numbered(10), empty)).toThrow(expect.objectContaining({ code: 'shard-empty' }))
})

describe('readAhead', () => {
  async function* counting(log: number[], failAt = Number.POSITIVE_INFINITY): AsyncGenerator<number, void> {
    try {
      for (let value = 0; ; value++) {
        if (value === failAt) throw new Error(`failed at ${value}`)
        log.push(value)
        yield value
      }
    } finally {
      log.push(-1)
    }
  }

  test('reads so many values ahead and no more', async () => {
    const log: number[] = []
    const ahead = readAhead(counting(log), { ahead: 3 })
    expect(await ahead.next()).toMatchObject({ value: 0 })
    await settled()
    expect(log).toEqual([0, 1, 2, 3])
    expect(await ahead.next()).toMatchObject({ value: 1 })
    await settled()
    expect(log).toEqual([0, 1, 2, 3, 4])
    await ahead.return()
    expect(log.at(-1)).toBe(-1)
  })

  test('ends where the source ends', async () => {
    const values: number[] = []
    const three = (async function* () {
      yield* [1, 2, 3]
    })()
    for await (const value of readAhead(three, { ahead: 5 })) values.push(value)
    expect(values).toEqual([1, 2, 3])
  })

  test('gives the values before an error, then the error', async () => {
    const values: number[] = []
    const reading = async () => {
      for await (const value of readAhead(counting([], 2), { ahead: 8 })) {
        await settled() // The error is there long before its turn, and must not count as unhandled.
        values.push(value)
      }
    }
    await expect(reading()).rejects.toThrow('failed at 2')
    expect(values).toEqual([0, 1])
  })

  test('stops on abort, also while a read hangs', async () => {
    const controller = new AbortController()
    const hanging = (async function* (): AsyncGenerator<number, void> {
      yield 1
      await new Promise(() => {})
    })()
    const ahead = readAhead(hanging, { signal: controller.signal })
    await ahead.next()
    const next = ahead.next()
    controller.abort(new Error('stop'))
    await expect(next).rejects.toThrow('stop')

    const log: number[] = []
    const before = readAhead(counting(log), { signal: AbortSignal.abort(new Error('before')) })
    await expect(before.next()).rejects.toThrow('before')
  })
})
