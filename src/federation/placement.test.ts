import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { manifestOf } from './manifest.ts'
import { manifestOfServer, place, rowsByServer, serverOfRow, verifyRowIds } from './placement.ts'

const table = { name: 'embedding', width: 16, rows: 1000, initial: { scale: 0.01 } }
const manifest = manifestOf(
  [300, 7, 7, 512, 90, 250].map((size, index) => ({ name: `w${index}`, shape: [size], role: 'weight' as const })),
)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

test('the largest tensor first, each to the server that has least; ties by order', () => {
  // 512 → 0, 300 → 1, 250 → 2, 90 → 2, 7 → 1, 7 → 1.
  expect(place(manifest, [table], 3).tensors).toEqual([1, 1, 1, 0, 2, 2])
  expect(place(manifest, [table], 1).tensors).toEqual([0, 0, 0, 0, 0, 0])
})

test('every tensor is on one server, in the manifest’s order, also where servers are more than tensors', () => {
  for (const servers of [1, 2, 3, 9]) {
    const placement = place(manifest, [], servers)
    const parts = Array.from({ length: servers }, (_, server) => manifestOfServer(manifest, placement, server))
    expect(parts.flat().toSorted((a, b) => manifest.indexOf(a) - manifest.indexOf(b))).toEqual(manifest)
    for (const part of parts) expect(part).toEqual(manifest.filter((entry) => part.includes(entry)))
  }
})

test('the digest is over tensors, tables and servers', () => {
  const digest = hex(place(manifest, [table], 2).digest)
  expect(hex(place([...manifest], [{ ...table }], 2).digest)).toBe(digest)
  const others = [
    place(manifest, [table], 3),
    place(manifest, [], 2),
    place(manifest.slice(1), [table], 2),
    place(manifest, [{ ...table, rows: 1001 }], 2),
    place(manifest, [{ ...table, width: 8 }], 2),
    place(manifest, [{ ...table, initial: { scale: 0.02 } }], 2),
  ]
  expect(new Set([digest, ...others.map((other) => hex(other.digest))]).size).toBe(7)
})

test('rows spread evenly, neighbours and multiples of the number of servers alike', () => {
  for (const step of [1, 3, 1024]) {
    const counts = [0, 0, 0]
    for (let row = 0; row < 30_000; row++) counts[serverOfRow(row * step, 3)]!++
    // Five deviations of a fair split: √(30,000 · ⅓ · ⅔) = 82.
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(410)
  }
})

test('rows by server are ascending, complete and where they say', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(2 ** 31)), fc.integer({ min: 1, max: 5 }), (list, servers) => {
      const ids = Uint32Array.from(list).sort()
      const parts = rowsByServer(ids, servers)
      expect(parts).toHaveLength(servers)
      expect(parts.reduce((sum, part) => sum + part.ids.length, 0)).toBe(ids.length)
      for (const [server, part] of parts.entries()) {
        expect([...part.positions].map((position) => ids[position])).toEqual([...part.ids])
        verifyRowIds({ ...table, rows: 2 ** 31 + 1 }, part.ids, server, servers)
      }
    }),
  )
})

describe('what a peer must not ask for', () => {
  const mine = Array.from({ length: 1000 }, (_, id) => id).filter((id) => serverOfRow(id, 2) === 1)
  const another = Array.from({ length: 1000 }, (_, id) => id).findLast((id) => serverOfRow(id, 2) === 0)!
  test.each<[string, number[], string]>([
    ['an id beyond the table', [mine[0]!, 1000], 'row-out-of-range'],
    ['a negative id, which is one beyond it', [-1 >>> 0], 'row-out-of-range'],
    ['a row twice', [mine[3]!, mine[3]!], 'rows-malformed'],
    ['descending ids', [mine[3]!, mine[2]!], 'rows-malformed'],
    ['a row of the other server', [mine[0]!, another], 'rows-malformed'],
  ])('%s', (_, ids, code) => {
    expect(() => verifyRowIds(table, Uint32Array.from(ids), 1, 2)).toThrow(expect.objectContaining({ code }))
  })
})
