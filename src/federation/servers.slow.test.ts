/** Connections of a synchronous job with two servers are cut at random: it ends with the bits of an undisturbed run. */
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { startServers, startTableWorker, tableState } from '../../test/support/server-group.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

/** Connections are cut whenever so many events have been told, until there are no more cuts; all is as if nothing had been. */
async function disturbed(
  cuts: readonly { after: number; which: number }[],
  servers: number,
  workers: number,
  totalUpdates: number,
) {
  let [told, next] = [0, 0]
  const group = startServers(engine, {
    servers,
    workers,
    totalUpdates,
    job: { saveEvery: 2 },
    limits: { withoutWorkersMs: 60_000 },
    events: () => {
      told++
      const cut = cuts[next]
      if (cut === undefined || told < cut.after) return
      ;[told, next] = [0, next + 1]
      const { connections } = group
      connections[
        connections.length - 1 - (cut.which % Math.min(connections.length, servers * (workers + 1)))
      ]?.destroy()
    },
  })
  const running = Array.from({ length: workers }, (_, worker) =>
    startTableWorker(engine, group, worker, { reconnectForMs: 1_500 }),
  )
  await Promise.all(group.servers.map(({ result }) => result))
  for (const settled of await Promise.allSettled(running.map(({ result }) => result))) {
    // Whoever is cut off when training ends finds nobody to come back to.
    if (settled.status === 'rejected') expect(settled.reason).toMatchObject({ code: 'server-unreachable' })
  }
  return { group, state: tableState(group), cuts: next }
}

describe('cut connections', () => {
  test('a synchronous run ends with the bits of an undisturbed one', async () => {
    const { state } = await disturbed([], 2, 3, 8)
    const cut = fc.record({ after: fc.integer({ min: 1, max: 12 }), which: fc.nat(30) })
    let made = 0
    await fc.assert(
      fc.asyncProperty(fc.array(cut, { minLength: 1, maxLength: 6 }), async (cuts) => {
        const run = await disturbed(cuts, 2, 3, 8)
        made += run.cuts
        expect(run.state).toEqual(state)
      }),
      { numRuns: 12, timeout: 8000 },
    )
    expect(made).toBeGreaterThan(12)
  }, 120_000)
})
