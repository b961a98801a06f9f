/** Which batch each worker computes next, whoever leaves, comes back or takes over. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DataPlan } from './data-plan.ts'

describe('a plan', () => {
  test('hands out each shard in order, to its own worker', () => {
    const plan = new DataPlan(2)
    expect([plan.next(0), plan.next(1), plan.next(0)]).toMatchObject([
      { shard: 0, position: 0 },
      { shard: 1, position: 0 },
      { shard: 0, position: 1 },
    ])
    expect(plan.positions).toEqual([0, 0])
  })

  test('counts what is done with, not what is in hand', () => {
    const plan = new DataPlan(2)
    plan.settle(plan.next(1))
    plan.next(1)
    expect(plan.positions).toEqual([0, 1])
    expect(new DataPlan(2, plan.positions).next(1)).toMatchObject({ shard: 1, position: 1 })
  })

  test('hands out again what a worker had in hand when it comes back, and only that counts', () => {
    const plan = new DataPlan(2)
    plan.settle(plan.next(1))
    const before = [plan.next(1), plan.next(1)]
    expect(before.map((lease) => plan.isCurrent(lease))).toEqual([true, true])
    plan.join(1)
    const [again] = [plan.next(1)]
    expect(again).toMatchObject({ shard: 1, position: 1 })
    expect([...before, again].map((lease) => plan.isCurrent(lease))).toEqual([false, false, true])
    expect(() => plan.settle(before[0]!)).toThrow('handed out again')
    expect(plan.positions).toEqual([0, 1])
  })

  test('hands out again what is in hands when a shard moves and moves back', () => {
    const plan = new DataPlan(2)
    const first = plan.next(0)
    plan.move(0, [1])
    const heirs = plan.next(1)
    plan.join(0)
    const last = plan.next(0)
    for (const lease of [first, heirs, last]) expect(lease).toMatchObject({ shard: 0, position: 0 })
    expect([first, heirs, last].map((lease) => plan.isCurrent(lease))).toEqual([false, false, true])
  })

  test('gives the shards of who left to who has fewest, and back', () => {
    const plan = new DataPlan(4)
    expect(plan.move(3, [0, 1, 2])).toEqual([{ shard: 3, to: 0 }])
    expect(plan.move(0, [1, 2])).toEqual([
      { shard: 0, to: 1 },
      { shard: 3, to: 2 },
    ])
    // Of its two shards the one that is behind comes first.
    expect([plan.next(2), plan.next(2)].map(({ shard }) => shard)).toEqual([2, 3])
    plan.join(3)
    expect([plan.next(3), plan.next(2), plan.next(2)].map(({ shard }) => shard)).toEqual([3, 2, 2])
    expect(plan.move(1, [])).toEqual([])
  })

  test('leaves no batch out and settles none twice, in whatever order workers come and go', () => {
    const workers = 3
    const step = fc.record({ kind: fc.constantFrom('compute', 'die', 'back', 'move'), worker: fc.nat(workers - 1) })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        const plan = new DataPlan(workers)
        const here = new Set(Array.from({ length: workers }, (_, worker) => worker))
        const done: number[][] = Array.from({ length: workers }, () => [])
        const owners = () => new Set(here)
        const owned = (worker: number): boolean => {
          try {
            const task = plan.next(worker)
            plan.settle(task)
            done[task.shard]!.push(task.position)
            return true
          } catch {
            return false
          }
        }
        for (const { kind, worker } of steps) {
          if (kind === 'compute' && here.has(worker)) expect(owned(worker)).toBe(true)
          else if (kind === 'die') here.delete(worker)
          else if (kind === 'move' && !here.has(worker)) plan.move(worker, owners())
          else if (kind === 'back' && !here.has(worker)) {
            here.add(worker)
            plan.join(worker)
          }
        }
        for (const positions of done) expect(positions).toEqual(positions.map((_, index) => index))
        expect(plan.positions).toEqual(done.map(({ length }) => length))
      }),
    )
  })
})
