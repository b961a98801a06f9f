import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { RowsBlock } from '../storage/rows-block.ts'
import { type Capture, EmbeddingTable, type EmbeddingTableOptions } from './embedding-table.ts'

const spec = { name: 'embedding', width: 6, rows: 1_000_000, initial: { scale: 0.25 } }

function tableOf(options: Partial<EmbeddingTableOptions> = {}): EmbeddingTable {
  return new EmbeddingTable({ spec, seed: 7, slots: { accumulator: 0.1, other: -3 }, maximumRows: 500_000, ...options })
}

function gather(table: EmbeddingTable, ids: number[], create: boolean): number[] {
  const out = new Float32Array(ids.length * table.spec.width)
  table.gather(Uint32Array.from(ids), out, { create })
  return [...out]
}

/** Writes `value` to the row, −value and 2·value to its slots. */
function write(table: EmbeddingTable, id: number, value: number): void {
  const parts = [value, -value, 2 * value].map((number) => new Float32Array(spec.width).fill(number))
  table.write(table.places(Uint32Array.of(id)), parts)
}

/** By id: the first number of value and slots. Fails where an id comes twice. */
function read(blocks: Iterable<RowsBlock>, into = new Map<number, number[]>()): Map<number, number[]> {
  for (const { table, width, slots, ids, values } of blocks) {
    expect({ table, width, slots }).toEqual({ table: 'embedding', width: 6, slots: ['accumulator', 'other'] })
    expect(ids.length).toBeGreaterThan(0)
    expect(ids.length).toBeLessThanOrEqual(8192)
    expect(values).toHaveLength(ids.length * 18)
    for (const [row, id] of ids.entries()) {
      expect(into.has(id)).toBe(false)
      into.set(
        id,
        [0, 6, 12].map((offset) => values[row * 18 + offset]!),
      )
    }
  }
  return into
}

describe('first values', () => {
  test('are a function of seed, table and row alone', () => {
    const first = gather(tableOf(), [5, 900_000], true)
    const other = tableOf()
    gather(other, [3, 900_000, 17], true)
    expect(gather(other, [5, 900_000], true)).toEqual(first)
    expect(gather(tableOf({ seed: 8 }), [5], true)).not.toEqual(first.slice(0, 6))
    expect(gather(tableOf({ spec: { ...spec, name: 'another' } }), [5], true)).not.toEqual(first.slice(0, 6))
    expect(first.slice(0, 6)).not.toEqual(first.slice(6))
  })

  test('stay what they were in earlier versions', () => {
    // Our own numbers, to notice a change: saved models leave out rows that no gradient has reached.
    expect(gather(tableOf(), [5], false)).toMatchInlineSnapshot(`
      [
        0.2169497162103653,
        -0.1844652146100998,
        -0.21921910345554352,
        0.15878157317638397,
        -0.2153416872024536,
        -0.011866198852658272,
      ]
    `)
  })

  test('are uniform in ±scale', () => {
    const values = gather(
      tableOf(),
      Array.from({ length: 5000 }, (_, id) => id * 3),
      false,
    )
    const tenths = new Array<number>(10).fill(0)
    for (const value of values) tenths[Math.floor((value / 0.25 + 1) * 5)]!++
    // 30,000 numbers; five deviations of a tenth: √(30,000 · 0.09) = 52.
    for (const count of tenths) expect(Math.abs(count - 3000)).toBeLessThan(260)
  })

  test('of slots are the optimizer’s', () => {
    const table = tableOf()
    gather(table, [4], true)
    const [value] = gather(table, [4], false)
    expect([...read(table.all())]).toEqual([[4, [value, Math.fround(0.1), -3]]])
  })
})

test('reading makes a row only when told to', () => {
  const table = tableOf()
  const values = gather(table, [1, 2], false)
  expect(table.size).toBe(0)
  expect(gather(table, [1, 2], true)).toEqual(values)
  expect(table.size).toBe(2)
  write(table, 2, 1.5)
  expect(gather(table, [1, 2, 3], false).slice(6, 12)).toEqual(new Array(6).fill(1.5))
})

describe('at its bound', () => {
  test('a table takes no new row, and none of those that came together', () => {
    const table = tableOf({ maximumRows: 5 })
    gather(table, [1, 2, 3, 4], true)
    expect(() => gather(table, [1, 5, 6], true)).toThrow(
      expect.objectContaining({
        code: 'table-full',
        message: 'embedding: expected at most 5 rows, got 2 new ones beside 4',
      }),
    )
    expect(table.size).toBe(4)
    gather(table, [4, 9], true)
    expect(() => gather(table, [5], true)).toThrow(expect.objectContaining({ code: 'table-full' }))
    gather(table, [5], false)
    gather(table, [1, 2, 3, 4, 9], true)
  })
})

describe('a capture', () => {
  test('has the rows that were written since the last one, not those that were only made', () => {
    const table = tableOf()
    gather(table, [1, 2, 3], true)
    write(table, 2, 0.5)
    write(table, 9, 4)
    const capture = table.capture()
    expect(capture.rows).toBe(2)
    expect(read(capture.blocks())).toEqual(
      new Map([
        [2, [0.5, -0.5, 1]],
        [9, [4, -4, 8]],
      ]),
    )
    capture.commit()
    write(table, 3, 1)
    expect(table.capture().rows).toBe(1)
  })

  test('that could not be saved comes again, with what changed meanwhile', () => {
    const table = tableOf()
    for (const id of [1, 2, 3]) write(table, id, id)
    const failed = table.capture()
    write(table, 2, 20)
    write(table, 4, 4)
    const [block] = failed.blocks()
    expect(block).toBeDefined()
    failed.cancel()
    const capture = table.capture()
    expect(capture.rows).toBe(4)
    expect([...read(capture.blocks())].map(([id, [value]]) => [id, value]).sort()).toEqual([
      [1, 1],
      [2, 20],
      [3, 3],
      [4, 4],
    ])
  })

  // Against a model: a map of values, copied whole at each capture.
  test('is what the table was at its moment, whatever is written before, between and after its blocks', () => {
    const row = fc.integer({ min: 0, max: 70_000 })
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant('write' as const), first: row, count: fc.nat(9000) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('capture' as const) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('block' as const) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('close' as const), saved: fc.boolean() }) },
    )
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 30 }), (steps) => {
        // Slabs of 32,768 rows.
        const width = 32
        const table = new EmbeddingTable({
          spec: { ...spec, width },
          seed: 1,
          slots: { slot: 0 },
          maximumRows: 100_000,
        })
        const values = new Map<number, number>()
        const changed = new Set<number>()
        let clock = 0
        let open: { capture: Capture; blocks: Generator<RowsBlock>; expected: Map<number, number> } | undefined
        let got = new Map<number, number>()
        const take = (block: RowsBlock): void => {
          for (const [index, id] of block.ids.entries()) {
            if (got.has(id)) throw new Error(`row ${id} twice`)
            got.set(id, block.values[2 * width * index]!)
          }
        }
        for (const step of steps) {
          if (step.kind === 'write') {
            const ids = Uint32Array.from({ length: step.count }, (_, index) => step.first + index)
            const part = new Float32Array(ids.length * width)
            for (const [index, id] of ids.entries()) {
              part[index * width] = ++clock
              values.set(id, clock)
              changed.add(id)
            }
            table.write(table.places(ids), [part, part])
          } else if (step.kind === 'capture' && open === undefined) {
            const capture = table.capture()
            open = {
              capture,
              blocks: capture.blocks(),
              expected: new Map([...changed].map((id) => [id, values.get(id)!])),
            }
            expect(capture.rows).toBe(changed.size)
            got = new Map()
            changed.clear()
          } else if (step.kind === 'block' && open !== undefined) {
            const { value } = open.blocks.next()
            if (value !== undefined) take(value)
          } else if (step.kind === 'close' && open !== undefined) {
            if (step.saved) {
              for (const block of open.blocks) take(block)
              expect(got).toEqual(open.expected)
              open.capture.commit()
            } else {
              open.capture.cancel()
              for (const id of open.expected.keys()) changed.add(id)
            }
            open = undefined
          }
          expect(table.changedRows).toBe(changed.size)
        }
      }),
      { numRuns: 25 },
    )
  })
})

test('what was captured in parts and loaded elsewhere is the same table', () => {
  const table = tableOf()
  const saved: RowsBlock[] = []
  for (let round = 0; round < 3; round++) {
    for (let id = round * 4000; id < 10_000; id += 7) write(table, id, id + round)
    const capture = table.capture()
    saved.push(...capture.blocks())
    capture.commit()
  }
  const loaded = tableOf({ maximumRows: 20_000 })
  for (const block of saved) loaded.load(block)
  expect(read(loaded.all())).toEqual(read(table.all()))
  expect(loaded.changedRows).toBe(0)
})

describe('rows of something else are not loaded', () => {
  const block = { table: 'embedding', width: 6, slots: ['accumulator', 'other'], ids: Uint32Array.of(1) }
  const good: RowsBlock = { ...block, values: new Float32Array(18) }
  test.each<[string, RowsBlock, string]>([
    ['another table', { ...good, table: 'users' }, 'table-mismatch'],
    ['another width', { ...good, width: 18, slots: [] }, 'table-mismatch'],
    ['another optimizer', { ...good, slots: ['first', 'second'] }, 'table-mismatch'],
    ['slots in another order', { ...good, slots: ['other', 'accumulator'] }, 'table-mismatch'],
    ['an id beyond the table', { ...good, ids: Uint32Array.of(1_000_000) }, 'row-out-of-range'],
  ])('%s', (_, wrong, code) => {
    expect(() => tableOf().load(wrong)).toThrow(expect.objectContaining({ code }))
  })
})
