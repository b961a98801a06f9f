import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { touchedRows } from './touched-rows.ts'

test('each row once, ascending, and every id finds its row', () => {
  const ranges = [fc.nat(9), fc.nat(2047), fc.nat(4_194_304), fc.nat(2 ** 31 - 1)]
  fc.assert(
    fc.property(fc.array(fc.oneof(...ranges), { maxLength: 300 }), (batch) => {
      const { ids, indices } = touchedRows(Int32Array.from(batch), { name: 't', rows: 2 ** 31 })
      expect([...ids]).toEqual([...new Set(batch)].sort((a, b) => a - b))
      expect([...indices].map((index) => ids[index])).toEqual(batch)
    }),
  )
})

describe('ids that the table has not are refused', () => {
  test.each([-1, -(2 ** 31), 10, 2 ** 31 - 1])('%d of 10 rows', (id) => {
    expect(() => touchedRows(Int32Array.of(3, id, 4), { name: 't', rows: 10 })).toThrow(
      expect.objectContaining({ code: 'row-out-of-range', message: expect.stringContaining(`${id}`) }),
    )
  })
})
