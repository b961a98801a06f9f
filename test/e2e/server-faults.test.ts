/**
 * Servers and workers of one real job are killed with −9 at seeded moments, connections are cut, disks filled, a checkpoint
 * damaged: the job always finishes, and loses no checkpoint that was reported. CLOISTER_FAULTS=50 does it at length.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { parseSafetensors } from '../../src/storage/safetensors.ts'
import { Cluster, simulatedPlatform, smallRecommendation, synthesizeClicks } from './cluster.ts'
import { type Reported, Sandbox } from './program.ts'

const kills = Number(process.env.CLOISTER_FAULTS ?? 8)
const updates = Math.max(160, kills * 20)
const [servers, workers] = [2, 4]

/** Numbers in [0, 1) that a failing run can be repeated with. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

/** What the servers released: every tensor's bytes by name, every row's by id (they lie in the order in which they were first touched). */
function learnt(sandbox: Sandbox, cluster: Cluster): ReadonlyMap<string, string> {
  const values = new Map<string, string>()
  const hex = (floats: Float32Array): string => Buffer.from(floats.slice().buffer).toString('hex')
  for (const [server, { directory }] of cluster.servers.entries()) {
    const name = `model/variables-${server + 1}-of-${cluster.servers.length}.safetensors`
    const { ids, tensors } = parseSafetensors(readFileSync(sandbox.path(directory, name)))
    for (const { name, shape, data } of tensors) {
      const rows = ids.find((table) => table.name.replace('/ids', '/values') === name)
      if (rows === undefined) values.set(name, hex(data))
      const width = shape[1]!
      for (const [at, id] of rows?.data.entries() ?? []) {
        values.set(`row ${id}`, hex(data.subarray(at * width, (at + 1) * width)))
      }
    }
  }
  return new Map([...values].sort(([one], [other]) => (one < other ? -1 : 1)))
}

/** Every life of the leader goes on from the newest checkpoint that it had reported before, or a newer one. */
function expectNothingLost(events: readonly Reported[]): void {
  let durable = 0
  for (const event of events) {
    if (event.kind === 'checkpointed') durable = Math.max(durable, event.step)
    if (event.kind === 'resumed') expect(event.step).toBeGreaterThanOrEqual(durable)
  }
  expect(durable).toBeGreaterThan(0)
}

const synchronous = { name: 'synchronous', quorum: workers, minimumWorkers: workers, deadlineMs: 3_600_000 }

test(`${kills} kills, connections cut: a synchronous job ends with the weights of an undisturbed one`, async () => {
  const sandbox = new Sandbox()
  const data = await synthesizeClicks(sandbox)
  const admission = await simulatedPlatform(sandbox)
  const job = smallRecommendation({ servers, workers, training: { updates, mode: synchronous } })

  const calm = await Cluster.start({ sandbox, job, data, admission, name: 'calm' })
  await calm.finished()
  for (const { failures } of calm.parties) expect(failures).toEqual([])

  const random = seeded(7)
  const shaken = await Cluster.start({ sandbox, job, data, admission, name: 'shaken' })
  const killed: string[] = []
  for (let kill = 0; kill < kills; kill++) {
    // Most come when there is progress, each at some moment of a step, some when others still recover.
    if (random() < 0.7) await shaken.reaches(Math.floor(((kill + random()) * updates * 0.9) / kills))
    await sleep(random() * 1500)
    const party = shaken.parties[Math.floor(random() * (servers + workers))]!
    party.kill()
    killed.push(party.name)
    if (random() < 0.3) shaken.proxies[Math.floor(random() * servers)]!.cut()
  }
  await shaken.finished()

  expect(killed).toHaveLength(kills)
  for (const { failures } of shaken.parties) {
    for (const { signal, err } of failures) expect({ signal, err }).toEqual({ signal: 'SIGKILL', err: '' })
  }
  expectNothingLost(shaken.leaderEvents)
  expect(sandbox.json('shaken-server0/result.json')).toMatchObject({ steps: updates, interrupted: false })
  const undisturbed = learnt(sandbox, calm)
  expect(undisturbed.size).toBeGreaterThan(1000)
  const disturbed = learnt(sandbox, shaken)
  expect([...disturbed.keys()]).toEqual([...undisturbed.keys()])
  // One by one: the difference of two whole models would fill the screen.
  expect([...undisturbed].filter(([name, value]) => disturbed.get(name) !== value).map(([name]) => name)).toEqual([])
})
