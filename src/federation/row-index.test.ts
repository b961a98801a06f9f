import fc from 'fast-check'
import { expect, test } from 'vitest'
import { mix32 } from './mix32.ts'
import { absent, RowIndex } from './row-index.ts'

test('places count from 0 and are found again; other ids are absent', () => {
  const anyId = fc.oneof(fc.nat(50), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
  fc.assert(
    fc.property(fc.uniqueArray(anyId, { maxLength: 400 }), fc.array(anyId), (ids, others) => {
      const index = new RowIndex(1000)
      expect(ids.map((id) => index.add(id))).toEqual([...ids.keys()])
      for (const [place, id] of ids.entries()) {
        expect(index.placeOf(id)).toBe(place)
        expect(index.idAt(place)).toBe(id)
      }
      for (const id of others) expect(index.placeOf(id)).toBe(ids.indexOf(id))
      expect(absent).toBe(-1)
    }),
  )
})

// The most rows that an index can be asked for leave one bit of fingerprint.
test.each([70_000, 2 ** 31 - 1])('across chunks and many growths, at a bound of %d', (maximumRows) => {
  const index = new RowIndex(maximumRows)
  const idOf = (place: number): number => Math.imul(place, 0x9e3779b1) >>> 0
  for (let place = 0; place < 70_000; place++) index.add(idOf(place))
  let wrong = 0
  for (let place = 0; place < 70_000; place++) if (index.placeOf(idOf(place)) !== place) wrong++
  for (let place = 70_000; place < 140_000; place++) if (index.placeOf(idOf(place)) !== absent) wrong++
  expect(wrong).toBe(0)
})

test('ids that fall into one segment are found all the same', () => {
  const ids: number[] = []
  for (let id = 0; ids.length < 3000; id++) if (mix32(id) >>> 19 === 5) ids.push(id)
  const index = new RowIndex(2 ** 30)
  for (const id of ids) index.add(id)
  expect(ids.every((id, place) => index.placeOf(id) === place)).toBe(true)
})
