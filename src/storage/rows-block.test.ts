import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ByteReader } from './byte-reader.ts'
import { IdSet } from './id-set.ts'
import { encodeRowsBlock, type RowsBlock, readRowsBlock } from './rows-block.ts'

/** The bytes in pieces of a size that fits nothing. */
async function* pieces(bytes: Uint8Array, size = 7): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const fileOf = (description: unknown, data = 0): Buffer => {
  const json = typeof description === 'string' ? Buffer.from(description) : Buffer.from(JSON.stringify(description))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  return Buffer.concat([length, json, Buffer.alloc(data)])
}

test('blocks come back in order, bit for bit', async () => {
  const blocks = fc.array(
    fc
      .record({
        table: fc.string(),
        width: fc.integer({ min: 1, max: 5 }),
        slots: fc.array(fc.string(), { maxLength: 2 }),
        ids: fc.uint32Array({ maxLength: 20 }),
      })
      .map((block) => ({
        ...block,
        values: Float32Array.from({ length: block.ids.length * block.width * (1 + block.slots.length) }, Math.sin),
      })),
    { maxLength: 5 },
  )
  await fc.assert(
    fc.asyncProperty(blocks, async (all) => {
      const reader = new ByteReader(pieces(Buffer.concat(all.flatMap(encodeRowsBlock))))
      const read: RowsBlock[] = []
      for (let block = await readRowsBlock(reader); block !== undefined; block = await readRowsBlock(reader))
        read.push(block)
      expect(read).toEqual(all)
    }),
  )
})

describe('a block that does not fit is refused before memory is taken', () => {
  const good = { table: 'users', width: 2, slots: [], rows: 1 }
  test.each<[string, Buffer]>([
    ['a description of 4 GB', Buffer.alloc(4, 255)],
    ['no JSON', fileOf('{"table":')],
    ['null', fileOf(null)],
    ['no table', fileOf({ ...good, table: 3 }, 12)],
    ['a negative width', fileOf({ ...good, width: -1 }, 12)],
    ['a fraction of a row', fileOf({ ...good, rows: 0.5 }, 12)],
    ['slots that are none', fileOf({ ...good, slots: 'sum' }, 12)],
    ['too many rows', fileOf({ ...good, rows: 8193 }, 12)],
    ['too wide rows', fileOf({ ...good, rows: 8192, width: 2 ** 40 }, 12)],
    ['fewer bytes than it says', fileOf(good, 11)],
    ['half a length', Buffer.alloc(3)],
  ])('%s', async (_, bytes) => {
    await expect(readRowsBlock(new ByteReader(pieces(bytes)))).rejects.toMatchObject({ code: 'checkpoint-malformed' })
  })
})

test('a set of ids, against a set', () => {
  const ids = fc.oneof(
    fc.nat({ max: 100 }),
    fc.constantFrom(65_535, 65_536, 2 ** 31, 2 ** 32 - 1),
    fc.nat({ max: 2 ** 32 - 1 }),
  )
  fc.assert(
    fc.property(fc.array(ids, { maxLength: 200 }), (all) => {
      const [set, model] = [new IdSet(), new Set<number>()]
      for (const id of all) {
        expect(set.add(id)).toBe(!model.has(id))
        model.add(id)
      }
    }),
  )
})
