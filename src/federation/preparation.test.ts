/** What is agreed before training, and who takes part in it. */
import { afterAll, describe, expect, test } from 'vitest'
import { batchSize, kinds, linearTraining, startServer, startWorker } from '../../test/support/federation.ts'
import { linearBatches } from '../../test/support/linear-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Deferred } from './deferred.ts'
import { FederationError } from './federation-error.ts'
import type { PreparationServer, PreparationWorker } from './preparation.ts'
import { asynchronous } from './strategies/asynchronous.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

describe('preparation', () => {
  /** Joins what all workers contribute, in their order. */
  class Joining implements PreparationServer {
    readonly contributed = new Map<number, string>()
    restored: string | undefined

    begin(worker: number) {
      let text = ''
      return {
        accept: (part: Uint8Array) => {
          text += Buffer.from(part).toString()
        },
        end: () => {
          this.contributed.set(worker, text)
        },
      }
    }

    *result() {
      const all = [...this.contributed].sort(([a], [b]) => a - b).map(([, text]) => text)
      for (const part of all) yield Buffer.from(part)
    }

    restore(parts: Iterable<Uint8Array>) {
      this.restored = Buffer.concat([...parts]).toString()
    }
  }

  class Party implements PreparationWorker {
    readonly #parts: readonly string[]
    asked = 0
    agreed: string | undefined

    constructor(...parts: string[]) {
      this.#parts = parts
    }

    async *contribution() {
      this.asked++
      for (const part of this.#parts) yield Buffer.from(part)
    }

    begin() {
      let text = ''
      return {
        accept: (part: Uint8Array) => {
          text += Buffer.from(part).toString()
        },
        end: () => {
          this.agreed = text
        },
      }
    }
  }

  test('everybody gets what came of all contributions, and nobody trains before', async () => {
    const preparation = new Joining()
    const server = startServer(engine, { preparation, job: { totalUpdates: 2 } })
    const [first, second] = [new Party('a', 'b'), new Party('c')]
    const early = startWorker(engine, () => server.wire, 0, { preparation: first })
    while (preparation.contributed.size === 0) await new Promise(setImmediate)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect([first.agreed, kinds(server.events, 'update').length]).toEqual([undefined, 0])
    const late = startWorker(engine, () => server.wire, 1, { preparation: second })
    await Promise.all([server.result, early.result, late.result])
    expect([first.agreed, second.agreed]).toEqual(['abc', 'abc'])
  })

  test('is not repeated: a resumed server has the result, and asks nobody', async () => {
    const first = startServer(engine, { preparation: new Joining(), job: { totalUpdates: 2 } })
    const parties = [new Party('x'), new Party('y')]
    const workers = parties.map((preparation, worker) => startWorker(engine, () => first.wire, worker, { preparation }))
    await Promise.all([first.result, ...workers.map(({ result }) => result)])
    const preparation = new Joining()
    const second = startServer(engine, { preparation, checkpoints: first.checkpoints, job: { totalUpdates: 4 } })
    const others = [new Party('z'), new Party('z')]
    const again = others.map((party, worker) => startWorker(engine, () => second.wire, worker, { preparation: party }))
    await Promise.all([second.result, ...again.map(({ result }) => result)])
    expect(preparation.restored).toBe('xy')
    expect(others.map(({ asked, agreed }) => [asked, agreed])).toEqual([
      [0, 'xy'],
      [0, 'xy'],
    ])
  })

  test('a worker that is lost in the middle of its contribution begins again', async () => {
    const preparation = new Joining()
    const server = startServer(engine, { preparation, job: { workers: 1, totalUpdates: 2 }, limits: {} })
    let attempts = 0
    const party = new Party('one', 'two')
    const flaky: PreparationWorker = {
      begin: () => party.begin(),
      async *contribution() {
        for await (const part of party.contribution()) {
          yield part
          if (attempts++ === 0) throw new FederationError('peer-lost', 'cut', { hint: '' })
        }
      },
    }
    const worker = startWorker(engine, () => server.wire, 0, { preparation: flaky })
    while (preparation.contributed.size === 0) await new Promise(setImmediate)
    expect(preparation.contributed.get(0)).toBe('onetwo')
    expect(await worker.result).toMatchObject({ reason: 'complete' })
    await server.result
    expect(party.agreed).toBe('onetwo')
  })
})

describe('who takes part', () => {
  test('nobody trains before the minimum is there', async () => {
    const server = startServer(engine, { job: { totalUpdates: 2, minimumToStart: 2 } })
    const first = startWorker(engine, () => server.wire, 0)
    while (kinds(first.events, 'peer-joined').length === 0) await new Promise(setImmediate)
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(kinds(first.events, 'step')).toEqual([])
    const second = startWorker(engine, () => server.wire, 1)
    await Promise.all([server.result, first.result, second.result])
    expect(kinds(server.events, 'update').map(({ contributions }) => contributions)).toEqual([2, 2])
  })

  test('the shard of a worker that stays away goes to another, where it was, and back when it returns', async () => {
    const tasks: [worker: number, shard: number, position: number][] = []
    const noted = (worker: number) =>
      linearTraining(engine, worker, 2, {
        batch: async (task) => {
          tasks.push([worker, task.shard, task.position])
          // Other workers and their deadlines have their turn.
          await new Promise((resolve) => setTimeout(resolve, 1))
          return await linearBatches(batchSize, 2)(task)
        },
      })
    const [moved, shared] = [new Deferred<void>(), new Deferred<void>()]
    const server = startServer(engine, {
      job: { totalUpdates: 60, synchronous: false, moveShardsAfterMs: 5 },
      createStrategy: () => asynchronous({ stalenessExponent: 0 }),
      events: (event) => {
        if (event.kind === 'reassigned') moved.resolve()
      },
    })
    const leaving = startWorker(engine, () => server.wire, 1, {
      synchronous: false,
      training: noted(1),
      events: (event) => {
        if (event.kind === 'step' && event.step >= 2) leaving.stop.abort()
      },
    })
    expect(await leaving.result).toMatchObject({ reason: 'stopped' })
    const done = leaving.events.filter(({ kind }) => kind === 'step').length
    const staying = startWorker(engine, () => server.wire, 0, {
      synchronous: false,
      training: noted(0),
      events: () => {
        if (tasks.some(([worker, shard]) => worker === 0 && shard === 1)) shared.resolve()
      },
    })
    await moved.promise
    expect(kinds(server.events, 'reassigned')).toMatchObject([{ shard: 1, from: 1, to: 0 }])
    await shared.promise
    const taken = tasks.find(([worker, shard]) => worker === 0 && shard === 1)!
    expect(taken[2]).toBeGreaterThanOrEqual(done)
    expect(taken[2]).toBeLessThanOrEqual(done + 1)
    const returned = startWorker(engine, () => server.wire, 1, { synchronous: false, training: noted(1) })
    const before = tasks.length
    await Promise.all([server.result, staying.result, returned.result])
    const own = tasks.slice(before).filter(([worker]) => worker === 1)
    expect(own.length).toBeGreaterThan(0)
    expect(own.every(([, shard]) => shard === 1)).toBe(true)
    expect(own[0]![2]).toBeGreaterThan(taken[2] - 1)
  })
})
