/** What dies, stops or lies in the middle of a run, and who says so. */
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { anyEngine, eventually, processesNaming, type Reported, Sandbox, type Started, smallJob } from './program.ts'

/** A run of hundreds of updates that ends only when the test wants it to. */
const endless = { updates: 100_000 }

async function startRun(sandbox: Sandbox, job: object, more: readonly string[] = []): Promise<Started> {
  const data = await sandbox.synthesize()
  const file = sandbox.write('job.json', job)
  const run = ['simulate', '--job', file, '--data', data, '--out', 'run', '--engine', anyEngine, ...more]
  return sandbox.start(run)
}

/** The child of the launcher that plays `role`, once it runs. */
function childOf(sandbox: Sandbox, role: string): number {
  const pids = processesNaming(`${role}\0--`).filter((pid) => processesNaming(sandbox.path('run')).includes(pid))
  if (pids.length !== 1) throw new Error(`expected one process for ${role}, got ${pids}`)
  return pids[0] as number
}

const stepsOf = (sandbox: Sandbox, source: string) => (): Reported | undefined =>
  sandbox.events('run').find((event) => event.kind === 'step' && event.source === source)

const isUpdate = (event: Reported): boolean => event.kind === 'update'

test('a worker that is killed is named, and the others finish', async () => {
  const sandbox = new Sandbox()
  const run = await startRun(sandbox, smallJob({ updates: 150 }))
  await run.says(/worker1 joined/)
  await eventually(stepsOf(sandbox, 'worker1'))
  process.kill(childOf(sandbox, 'worker\0--index\x001'), 'SIGKILL')
  const { status, out } = await run.exited
  expect(out).toMatch(/server: worker1 left: lost \(peer-lost: /)
  expect(status).toBe(0)
  expect(sandbox.json('run/result.json')).toMatchObject({ steps: 150, interrupted: false })
  expect(sandbox.read('run/server.log')).toContain('worker1 left: lost')
})

test('a server that is killed ends the run with a coded error, and workers stop with it', async () => {
  const sandbox = new Sandbox()
  const run = await startRun(sandbox, smallJob(endless))
  await eventually(() => (run.out.includes('worker0 joined') ? stepsOf(sandbox, 'worker0')() : undefined))
  process.kill(childOf(sandbox, 'server'), 'SIGKILL')
  const { status, err } = await run.exited
  expect(status).toBe(1)
  expect(err).toMatch(/cloister: run-failed: /)
  expect(processesNaming(sandbox.directory)).toEqual([])
})

test('SIGINT: what was learnt is saved, everybody leaves, 130', async () => {
  const sandbox = new Sandbox()
  const run = await startRun(sandbox, smallJob(endless))
  await eventually(() => (run.out.includes('worker0 joined') ? stepsOf(sandbox, 'worker0')() : undefined))
  run.kill('SIGINT')
  const { status, out } = await run.exited
  expect(status).toBe(130)
  expect(out).toContain('Interrupted')
  expect(out).not.toContain('Optimization finished.')
  expect(sandbox.json('run/result.json')).toMatchObject({ interrupted: true, heldOut: null })
  expect(sandbox.files('run')).toContain('model/variables.safetensors')
  expect(processesNaming(sandbox.directory)).toEqual([])
})

test('a launcher that is killed leaves nobody behind, and what was learnt is saved', async () => {
  const sandbox = new Sandbox()
  const run = await startRun(sandbox, smallJob(endless))
  await eventually(() => (run.out.includes('worker0 joined') ? stepsOf(sandbox, 'worker0')() : undefined))
  run.kill('SIGKILL')
  await eventually(() => (processesNaming(sandbox.directory).length === 0 ? true : undefined))
  expect(sandbox.files('run')).toContain('model/variables.safetensors')
})

test('training that diverges ends with a coded error', async () => {
  const sandbox = new Sandbox()
  const learningRate = { schedule: 'constant', rate: 1e30 }
  const run = await startRun(sandbox, smallJob({ updates: 50, training: { learningRate } }))
  const { status, err } = await run.exited
  expect(status).toBe(1)
  expect(err).toMatch(/cloister: run-failed: (loss|values)-not-finite: /)
  expect(err).toContain('lower the learning rate')
})

test('several machines: one index is one worker, one job is one job, a server that dies is rejoined', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize()
  const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0', '--json'])
  await platform.says(/"pccsUrl"/)
  await sandbox.prepare('policy', 'init', 'policy.json', '--root', 'platform/root.pem')
  const admission = sandbox.json('policy.json')
  const job = sandbox.write('job.json', { ...smallJob(endless), admission })
  const other = sandbox.write('other.json', { ...smallJob({ updates: endless.updates + 1 }), admission })
  const deployment = sandbox.write('deployment.json', {
    platform: { kind: 'simulated', directory: 'platform' },
    engine: { choice: anyEngine, threads: 1 },
    saveEvery: 5,
    reconnectForMs: 60_000,
  })
  const serve = (listen: string, more: readonly string[] = []): Started =>
    sandbox.start(['server', '--job', job, '--deployment', deployment, '--listen', listen, '--out', 'server', ...more])
  const work = (index: number, out: string, address: string, jobFile = job): Started =>
    sandbox.start([
      ...['worker', '--job', jobFile, '--deployment', deployment, '--data', data, '--index', String(index)],
      ...['--connect', address, '--out', out],
    ])
  const server = serve('127.0.0.1:0')
  const [, address] = (await server.says(/listening on (\S+)/)) as unknown as [string, string]
  const first = work(0, 'worker0', address)
  await server.says(/worker0 joined/)

  const twin = await work(0, 'twin', address).exited
  expect(twin.status).toBe(1)
  expect(twin.err).toMatch(/cloister: worker-index-taken: /)
  await server.says(/refused .*worker-index-taken/)

  const stranger = await work(1, 'stranger', address, other).exited
  expect(stranger.status).toBe(1)
  expect(stranger.err).toMatch(/cloister: [a-z-]*job[a-z-]*: /)
  await server.says(/refused .*job/)

  /** The newest step that the server reported to be on disk. */
  const saved = (): number =>
    sandbox.events('server').reduce((step, event) => (event.kind === 'checkpointed' ? event.step : step), 0)
  await eventually(() => (saved() > 0 ? true : undefined))
  server.kill('SIGKILL')
  await server.exited
  await first.says(/connection lost/)
  const versionBefore = saved()
  const before = sandbox.events('server').length
  const second = serve(address, ['--resume'])
  await second.says(/worker0 joined/)
  // It goes on from what was saved, not from nothing.
  const next = await eventually(() => sandbox.events('server').slice(before).find(isUpdate))
  // One that was on disk when the server was killed, but not reported yet, counts too.
  const resumed = sandbox.events('server').find((event) => event.kind === 'resumed')
  expect(resumed?.step).toBeGreaterThanOrEqual(versionBefore)
  expect(next).toMatchObject({ step: resumed!.step + 1 })
  first.kill('SIGINT')
  expect((await first.exited).status).toBe(130)
  second.kill('SIGINT')
  expect((await second.exited).status).toBe(130)
  expect(sandbox.json('server/result.json')).toMatchObject({ interrupted: true, steps: saved() })
  expect(saved()).toBeGreaterThan(versionBefore)

  // The log of the server goes on over the kill, and says what was refused.
  const { peers } = sandbox.json('server/result.json') as { peers: [{ evidence: { mrEnclave: string } }] }
  const { mrEnclave } = peers[0].evidence
  const audit = await sandbox.run([
    ...['audit', 'verify', 'server', '--policy', 'server/evidence/policy.json', '--self', mrEnclave, '--json'],
  ])
  expect(audit.status).toBe(0)
  const [{ records, ended }] = JSON.parse(audit.out)
  expect(ended).toBe(true)
  const kinds = records.map((body: { record: string; event?: { kind: string } }) => body.event?.kind ?? body.record)
  expect(kinds.filter((kind: string) => kind === 'start')).toHaveLength(2)
  expect(kinds).toEqual(expect.arrayContaining(['peer-joined', 'peer-refused', 'checkpointed', 'resumed', 'finished']))

  platform.kill('SIGTERM')
  expect((await platform.exited).status).toBe(0)
})

test('a worker without a server waits as long as it was told, then says so', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize()
  const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0'])
  await platform.says(/PCCS/)
  await sandbox.prepare('policy', 'init', 'policy.json', '--root', 'platform/root.pem')
  const job = sandbox.write('job.json', { ...smallJob(endless), admission: sandbox.json('policy.json') })
  const deployment = sandbox.write('deployment.json', {
    platform: { kind: 'simulated', directory: 'platform' },
    engine: { choice: anyEngine, threads: 1 },
    reconnectForMs: 1_500,
  })
  const common = ['--job', job, '--deployment', deployment]
  const server = sandbox.start(['server', ...common, '--out', 'server'])
  const [, address] = (await server.says(/listening on (\S+)/)) as unknown as [string, string]
  const place = ['--index', '0', '--connect', address, '--data', data]
  const worker = sandbox.start(['worker', ...common, ...place, '--out', 'worker'])
  await server.says(/worker0 joined/)
  await sleep(500)
  server.kill('SIGKILL')
  const { status, out, err } = await worker.exited
  expect(out).toMatch(/connection lost .*attempt 2 in/)
  expect(status).toBe(1)
  expect(err).toMatch(/cloister: server-unreachable: expected a server within 1500 ms/)
  expect(err).toContain('Start the server again')
})
