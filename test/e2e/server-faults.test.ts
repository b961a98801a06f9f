/**
 * Servers and workers of one real job are killed with −9 at seeded moments, connections are cut, disks filled, a checkpoint
 * damaged: the job always finishes, and loses no checkpoint that was reported. CLOISTER_FAULTS=50 does it at length,
 * CLOISTER_FAULTS_SEED=8 at other moments.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { parseSafetensors } from '../../src/storage/safetensors.ts'
import { Cluster, type Party, simulatedPlatform, smallRecommendation, synthesizeClicks } from './cluster.ts'
import { eventually, type Reported, Sandbox } from './program.ts'

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

function expectSameValues(sandbox: Sandbox, calm: Cluster, shaken: Cluster): void {
  const undisturbed = learnt(sandbox, calm)
  expect(undisturbed.size).toBeGreaterThan(1000)
  const disturbed = learnt(sandbox, shaken)
  expect([...disturbed.keys()]).toEqual([...undisturbed.keys()])
  // One by one: the difference of two whole models would fill the screen.
  expect([...undisturbed].filter(([name, value]) => disturbed.get(name) !== value).map(([name]) => name)).toEqual([])
}

/** No file of the process may grow beyond `bytes`: as on a full disk, what it writes next fails in the middle. */
function limitFiles({ process }: Party, bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`])
}

/** Flips a bit of every file of the newest checkpoint. */
function damageNewest(directory: string): void {
  const steps = readdirSync(directory).flatMap((name) => /^(\d+)\.checkpoint$/.exec(name)?.[1] ?? [])
  const newest = join(directory, `${Math.max(...steps.map(Number))}.checkpoint`)
  const bytes = readFileSync(newest)
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(newest, bytes)
}

const synchronous = { name: 'synchronous', quorum: workers, minimumWorkers: workers, deadlineMs: 3_600_000 }

test(`${kills} kills, connections cut: a synchronous job ends with the weights of an undisturbed one`, async () => {
  const sandbox = new Sandbox()
  const data = await synthesizeClicks(sandbox)
  const admission = await simulatedPlatform(sandbox)
  const job = smallRecommendation({ servers, workers, training: { updates, mode: synchronous, transfer: 'bfloat16' } })

  const calm = await Cluster.start({ sandbox, job, data, admission, name: 'calm' })
  await calm.finished()
  for (const { failures } of calm.parties) expect(failures).toEqual([])

  const random = seeded(Number(process.env.CLOISTER_FAULTS_SEED ?? 7))
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
  expectSameValues(sandbox, calm, shaken)
})

test('a full disk, then a damaged checkpoint: nothing is lost but time', async () => {
  const sandbox = new Sandbox()
  const data = await synthesizeClicks(sandbox)
  const admission = await simulatedPlatform(sandbox)
  // Workers were told that the damaged checkpoint was safe: going on from an older one is for the parties to accept.
  const mode = { ...synchronous, quorum: 2, minimumWorkers: 2 }
  const job = smallRecommendation({
    servers,
    workers: 2,
    training: { updates: 120, mode },
    rest: { rollback: 'accept' },
  })
  const calm = await Cluster.start({ sandbox, job, data, admission, name: 'calm' })
  await calm.finished()

  const shaken = await Cluster.start({ sandbox, job, data, admission, name: 'shaken' })
  const [leader, follower] = shaken.servers as [Party, Party]
  const warnings = ({ directory }: Party): string[] =>
    sandbox.events(directory).flatMap((event) => (event.kind === 'warning' ? [event.error.code] : []))
  const isFull = ({ directory }: Party) =>
    eventually(() => (warnings({ directory } as Party).includes('storage-full') ? true : undefined))
  await shaken.reaches(15)
  for (const server of [follower, leader]) {
    limitFiles(server, 60_000)
    await isFull(server)
    limitFiles(server, 'unlimited')
  }
  const saved = (): number => shaken.leaderEvents.filter(({ kind }) => kind === 'checkpointed').length
  const before = saved()
  await eventually(() => (saved() >= before + 2 ? true : undefined))
  leader.kill(() => damageNewest(sandbox.path(leader.directory, 'checkpoints/server')))
  await shaken.finished()
  expect(warnings(leader)).toContain('sealed-damaged')
  expect(sandbox.json('shaken-server0/result.json')).toMatchObject({ steps: 120, interrupted: false })
  expectSameValues(sandbox, calm, shaken)
})

test.each(['refuse', 'accept'])('servers with an older copy of their checkpoints: %s', async (rollback) => {
  const sandbox = new Sandbox()
  const data = await synthesizeClicks(sandbox)
  const admission = await simulatedPlatform(sandbox)
  const job = smallRecommendation({ workers: 1, training: { updates: 2000 }, rest: { rollback } })
  const cluster = await Cluster.start({ sandbox, job, data, admission, name: 'run', saveEvery: 100 })
  const [server, worker] = cluster.parties as [Party, Party]
  const checkpoints = sandbox.path(server.directory, 'checkpoints')
  const [old, newer] = [sandbox.path('old'), sandbox.path('newer')]
  await eventually(() => (cluster.leaderEvents.some((event) => event.kind === 'checkpointed') ? true : undefined))
  const killed = server.process
  server.kill(() => cpSync(checkpoints, old, { recursive: true }))
  await killed.exited
  await eventually(() => (cluster.leaderEvents.some((event) => event.kind === 'resumed') ? true : undefined))
  const first = cluster.reached
  await cluster.reaches(first + 250)
  server.kill(() => {
    cpSync(checkpoints, newer, { recursive: true })
    rmSync(checkpoints, { recursive: true })
    cpSync(old, checkpoints, { recursive: true })
  })
  if (rollback === 'refuse') {
    const [refused] = await eventually(() => (worker.failures.length > 0 ? worker.failures : undefined))
    expect(refused).toMatchObject({ status: 1, err: expect.stringContaining('cloister: server-rolled-back: ') })
    // The operator brings the newer ones back.
    server.kill(() => {
      rmSync(checkpoints, { recursive: true })
      cpSync(newer, checkpoints, { recursive: true })
    })
  }
  await cluster.finished()
  expect(sandbox.json('run-server0/result.json')).toMatchObject({ steps: 2000, interrupted: false })
  const resumed = cluster.leaderEvents.flatMap((event) => (event.kind === 'resumed' ? [event.step] : []))
  if (rollback === 'refuse') {
    expect(resumed.at(-1)).toBeGreaterThanOrEqual(first + 100)
  } else {
    expect(resumed.at(-1)).toBe(resumed[0])
    expect(worker.failures).toEqual([])
  }
})

test('a worker comes late, leaves, loses its shard to the others and is replaced from another machine', async () => {
  const sandbox = new Sandbox()
  const data = await synthesizeClicks(sandbox)
  const admission = await simulatedPlatform(sandbox)
  const training = { updates: 1_000_000, minimumToStart: 2, moveShards: { afterMs: 300 } }
  // A vocabulary would wait for all owners' counts; hashing needs nobody.
  const dataOfAll = { name: 'criteo', categories: { scheme: 'hash', buckets: 1000 } }
  const job = smallRecommendation({ servers, workers: 3, training, rest: { data: dataOfAll } })
  const cluster = await Cluster.start({ sandbox, job, data, admission, name: 'run', present: [0, 1], saveEvery: 1000 })
  const said = (kind: string, peer?: string): number =>
    cluster.leaderEvents.filter(
      (event) => event.kind === kind && (peer === undefined || JSON.stringify(event).includes(`"${peer}"`)),
    ).length
  await cluster.reaches(50)
  expect(said('peer-joined', 'worker2')).toBe(0)
  cluster.startWorker(2)
  await eventually(() => (said('peer-joined', 'worker2') === 1 ? true : undefined))
  await cluster.workers[1]!.leave()
  const moved = await eventually(() => cluster.leaderEvents.find((event) => event.kind === 'reassigned'))
  expect(moved).toMatchObject({ shard: 1, from: 1 })
  const reached = cluster.reached
  await cluster.reaches(reached + 100)
  const replacement = cluster.startWorker(1, 'elsewhere')
  await eventually(() => (said('peer-joined', 'worker1') === 2 ? true : undefined))
  await eventually(() => (sandbox.events(replacement.directory).some(({ kind }) => kind === 'step') ? true : undefined))
  expect(replacement.failures).toEqual([])
  await cluster.stop()
  expect(sandbox.json('run-server0/result.json')).toMatchObject({ interrupted: true })
})
