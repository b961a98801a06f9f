import { describe, expect, test } from 'vitest'
import { FakeClock } from '../../test/support/fake-clock.ts'
import { Absences } from './absences.ts'
import { DataPlan } from './data-plan.ts'

function absences(moveShardsAfterMs: number | undefined, workers = 3) {
  const [clock, plan, present] = [new FakeClock(), new DataPlan(workers), new Set<number>()]
  const moves: unknown[] = []
  const all = new Absences({
    plan,
    workers,
    present: () => present,
    moveShardsAfterMs,
    replan: (change) => change(),
    clock,
    events: (event) => {
      if (event.kind === 'reassigned') moves.push([event.shard, event.from, event.to])
    },
  })
  const come = (worker: number): void => {
    present.add(worker)
    all.came(worker)
  }
  const go = (worker: number): void => {
    present.delete(worker)
    all.went(worker)
  }
  return { all, clock, plan, moves, come, go }
}

test('who was lost is not expected, who has not come yet is', () => {
  const { all, come, go } = absences(undefined)
  come(0)
  come(1)
  go(1)
  expect([...all.expected]).toEqual([0, 2])
  come(1)
  expect([...all.expected]).toEqual([0, 1, 2])
})

describe('shards of who is away', () => {
  test('stay when the job says nothing', () => {
    const { clock, moves, come, go } = absences(undefined)
    come(0)
    come(1)
    go(1)
    clock.advance(1e9)
    expect(moves).toEqual([])
  })

  test('go to another after the time, not before, and not when it is back by then', () => {
    const { clock, moves, plan, come, go } = absences(100)
    come(0)
    come(1)
    come(2)
    go(1)
    clock.advance(99)
    expect(moves).toEqual([])
    clock.advance(1)
    expect(moves).toEqual([[1, 1, 0]])
    go(2)
    clock.advance(50)
    come(2)
    clock.advance(1000)
    expect(moves.length).toBe(1)
    expect([plan.next(0), plan.next(0), plan.next(2)].map(({ shard }) => shard)).toEqual([0, 1, 2])
  })

  test('wait for the next that comes when nobody is there to take them', () => {
    const { clock, moves, plan, come, go } = absences(100)
    come(1)
    expect(plan.next(1)).toMatchObject({ shard: 1, position: 0 })
    go(1)
    clock.advance(100)
    expect(moves).toEqual([])
    come(0)
    expect(moves).toEqual([[1, 1, 0]])
    expect([plan.next(0), plan.next(0)]).toMatchObject([
      { shard: 0, position: 0 },
      { shard: 1, position: 0 },
    ])
  })

  test('stay when the epoch is over', () => {
    const { all, clock, moves, come, go } = absences(100)
    come(0)
    come(1)
    go(1)
    all.end()
    clock.advance(100)
    expect(moves).toEqual([])
  })
})
