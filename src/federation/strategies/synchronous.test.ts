import { describe, expect, test } from 'vitest'
import { type SynchronousOptions, synchronous } from './synchronous.ts'

interface Push {
  readonly worker: number
  readonly baseVersion: number
  readonly mark?: string
}

/** A round of version 5 among the workers `expected`, with a clock that the test moves. */
function round(options: Partial<SynchronousOptions> = {}) {
  const strategy = synchronous<Push>({
    take: 3,
    minimumWorkers: 1,
    ...options,
  })
  const situation = { version: 5, expected: new Set([0, 1, 2]), now: 1000 }
  const who = (decision: ReturnType<typeof strategy.review>) =>
    decision.kind === 'apply' ? decision.contributions.map(({ worker }) => worker) : decision.kind
  return {
    strategy,
    situation,
    push: (worker: number, baseVersion = situation.version) =>
      who(strategy.add({ worker, baseVersion }, { ...situation })),
    review: () => who(strategy.review({ ...situation })),
  }
}

test('all workers, in the order of their indices whoever came first', () => {
  const { push } = round()
  expect([push(2), push(0), push(1)]).toEqual(['wait', 'wait', [0, 1, 2]])
})

test('a new round begins empty', () => {
  const { push, situation } = round()
  for (const worker of [0, 1, 2]) push(worker)
  situation.version = 6
  expect([push(1), push(2), push(0)]).toEqual(['wait', 'wait', [0, 1, 2]])
})

test('a push that is withdrawn is missed again, and the deadline runs anew', () => {
  const { strategy, push, situation } = round({ deadlineMs: 500 })
  const [one, two] = [1, 2].map((worker) => ({ worker, baseVersion: 5 })) as [Push, Push]
  for (const contribution of [two, one]) strategy.add(contribution, situation)
  expect(strategy.withdraw({ ...two })).toBe(false)
  expect([strategy.withdraw(two), strategy.withdraw(two)]).toEqual([true, false])
  expect(strategy.dueAt).toBe(1500)
  expect(strategy.withdraw(one)).toBe(true)
  expect(strategy.dueAt).toBeUndefined()
  expect([push(0), push(1), push(2)]).toEqual(['wait', 'wait', [0, 1, 2]])
})

describe('N of M', () => {
  test('closes with the N-th push; the straggler is dropped with a reason and its next push counts', () => {
    const { strategy, push, situation } = round({ take: 2, minimumWorkers: 2 })
    expect([push(2), push(0)]).toEqual(['wait', [0, 2]])
    situation.version = 6
    const late = { worker: 1, baseVersion: 5 }
    expect(strategy.add(late, situation)).toMatchObject({
      kind: 'drop',
      contribution: late,
      error: { code: 'push-late', message: expect.stringContaining('version 6, got one for 5') },
    })
    expect([push(1), push(0)]).toEqual(['wait', [0, 1]])
  })
})

describe('deadline', () => {
  test('runs from the first push of a round, not from its opening', () => {
    const { strategy, push, review, situation } = round({ deadlineMs: 500 })
    expect(strategy.dueAt).toBeUndefined()
    push(1)
    situation.now = 1300
    push(0)
    expect(strategy.dueAt).toBe(1500)
    situation.now = 1499
    expect(review()).toBe('wait')
    situation.now = 1500
    expect(review()).toEqual([0, 1])
    expect(strategy.dueAt).toBeUndefined()
  })

  test('with too few workers the round goes on until there are enough', () => {
    const { push, review, situation } = round({ deadlineMs: 500, minimumWorkers: 2 })
    push(1)
    situation.now = 9999
    expect(review()).toBe('wait')
    expect(push(2)).toEqual([1, 2])
  })
})

describe('workers that come and go', () => {
  test('a lost worker is not waited for', () => {
    const { push, review, situation } = round()
    push(0)
    push(2)
    situation.expected = new Set([0, 2])
    expect(review()).toEqual([0, 2])
  })

  test('the push of a worker that was lost after it counts', () => {
    const { push, situation } = round()
    push(0)
    situation.expected = new Set([1, 2])
    expect(push(1)).toBe('wait')
    expect(push(2)).toEqual([0, 1, 2])
  })

  test('never fewer than the minimum, even when all others are lost', () => {
    const { push, review, situation } = round({ minimumWorkers: 2 })
    push(0)
    situation.expected = new Set([0])
    expect(review()).toBe('wait')
    situation.expected = new Set([0, 1])
    expect(push(1)).toEqual([0, 1])
  })

  test('a worker that comes back within a round replaces its push', () => {
    const { strategy, situation } = round({ take: 2 })
    const [first, second] = [
      { worker: 0, baseVersion: 5, mark: 'first' },
      { worker: 0, baseVersion: 5, mark: 'second' },
    ]
    strategy.add(first, situation)
    expect(strategy.add(second, situation)).toMatchObject({
      kind: 'drop',
      contribution: first,
      error: { code: 'push-replaced' },
    })
    const other = { worker: 1, baseVersion: 5 }
    expect(strategy.add(other, situation)).toMatchObject({ kind: 'apply', contributions: [second, other] })
  })

  test('an empty round is never applied', () => {
    const { review, situation } = round()
    situation.expected = new Set()
    expect(review()).toBe('wait')
  })
})
