/** Several servers and DLRM as processes: what dies is started again, and a synchronous job ends as if nothing had happened. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { RandomStream } from '../../src/models/philox.ts'
import { parseSafetensors } from '../../src/storage/safetensors.ts'
import { anyEngine, eventually, Sandbox, type Started } from './program.ts'

const updates = 60

function clickJob(training: object): object {
  return {
    workload: 'recommendation',
    seed: 5,
    servers: 2,
    workers: 2,
    model: { name: 'dlrm', embeddingWidth: 4, bottom: [8], top: [8] },
    data: {
      name: 'criteo',
      categories: { scheme: 'vocabulary', minimumCount: 2, maximumValues: 1000 },
      heldOut: { scheme: 'first', fraction: 0.2 },
    },
    training: {
      batchSize: 16,
      updates,
      optimizer: { name: 'adagrad', initialAccumulator: 0.01 },
      learningRate: { schedule: 'constant', rate: 0.05 },
      ...training,
    },
  }
}

/** What the servers released: every tensor's bytes by name, every row's by id (which lie in the order in which they were first touched). */
function releasedBy(sandbox: Sandbox, outs: readonly string[]): Map<string, string> {
  const released = new Map<string, string>()
  const hex = (values: Float32Array): string => Buffer.from(values.slice().buffer).toString('hex')
  for (const [server, out] of outs.entries()) {
    const file = parseSafetensors(readFileSync(sandbox.path(out, `model/variables-${server + 1}-of-2.safetensors`)))
    const rows = file.ids[0]!
    for (const { name, shape, data } of file.tensors) {
      if (name !== rows.name.replace('/ids', '/values')) released.set(name, hex(data))
      else {
        const width = shape[1]!
        for (const [row, id] of rows.data.entries()) {
          released.set(`row ${id}`, hex(data.subarray(row * width, (row + 1) * width)))
        }
      }
    }
  }
  return new Map([...released].sort(([one], [other]) => (one < other ? -1 : 1)))
}

test('killed with −9 at random moments and started again: the same values as undisturbed, to the bit', async () => {
  const sandbox = new Sandbox()
  await sandbox.run(['data', 'synthesize', 'criteo', 'rows', '--rows', '2000'])
  const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0', '--json'])
  await platform.says(/"pccsUrl"/)
  await sandbox.run(['policy', 'init', 'policy.json', '--root', 'platform/root.pem'])
  // Rounds wait for everybody: a worker that is away is missed, not left out.
  const synchronous = { mode: { name: 'synchronous', minimumWorkers: 2, deadlineMs: 600_000 } }
  const job = sandbox.write('job.json', { ...clickJob(synchronous), admission: sandbox.json('policy.json') })
  const deployment = sandbox.write('deployment.json', {
    platform: { kind: 'simulated', directory: 'platform' },
    engine: { choice: anyEngine, threads: 1 },
    saveEvery: 5,
    reconnectForMs: 120_000,
  })
  const files = ['--job', job, '--deployment', deployment]

  interface Party {
    readonly name: string
    readonly arguments: (resume: boolean) => string[]
    running: Started
  }
  const run = async (
    prefix: string,
    disturb: (parties: readonly Party[]) => Promise<void>,
  ): Promise<Map<string, string>> => {
    const out = (name: string): string[] => ['--out', `${prefix}-${name}`]
    const resumed = (resume: boolean): string[] => (resume ? ['--resume'] : [])
    const begin = (name: string, words: (resume: boolean) => string[]): Party => {
      return { name, arguments: words, running: sandbox.start(words(false)) }
    }
    const first = sandbox.start(['server', ...files, '--listen', '127.0.0.1:0', ...out('server0')])
    const [, leader] = (await first.says(/listening on (\S+)/)) as unknown as [string, string]
    const leading: Party = {
      name: 'server0',
      arguments: (resume) => ['server', ...files, '--listen', leader, ...out('server0'), ...resumed(resume)],
      running: first,
    }
    const second = sandbox.start([
      ...['server', '--index', '1', ...files, '--connect', leader, '--listen', '127.0.0.1:0', ...out('server1')],
    ])
    const [, follower] = (await second.says(/listening on (\S+)/)) as unknown as [string, string]
    const following: Party = {
      name: 'server1',
      arguments: (resume) => [
        ...['server', '--index', '1', ...files, '--connect', leader, '--listen', follower, ...out('server1')],
        ...resumed(resume),
      ],
      running: second,
    }
    const workers = [0, 1].map((index) =>
      begin(`worker${index}`, (resume) => [
        ...['worker', ...files, '--index', `${index}`, '--connect', leader, '--connect', follower],
        ...['--data', 'rows', ...out(`worker${index}`), ...resumed(resume)],
      ]),
    )
    const parties = [leading, following, ...workers]
    await disturb(parties)
    const ends = await Promise.all(parties.map(({ running }) => running.exited))
    expect(ends.map(({ status, err }) => ({ status, err }))).toEqual(parties.map(() => ({ status: 0, err: '' })))
    expect(sandbox.json(`${prefix}-server0/result.json`)).toMatchObject({ steps: updates, interrupted: false })
    return releasedBy(sandbox, [`${prefix}-server0`, `${prefix}-server1`])
  }

  const undisturbed = await run('calm', async () => {})
  const random = new RandomStream(17, 'kills')
  let kills = 0
  const disturbed = await run('rough', async (parties) => {
    const finished = (): boolean => sandbox.read('rough-server0/server.log').includes(`update: ${updates},`)
    for (const victim of [2, 1, 3, 0, 1, 2]) {
      await sleep(500 + random.below(1500))
      if (finished()) break
      const party = parties[victim]!
      party.running.kill('SIGKILL')
      await party.running.exited
      kills++
      party.running = sandbox.start(party.arguments(true))
      // What is killed before it takes part proves nothing.
      await eventually(() => (/joined|listening/.test(party.running.out) || finished() ? true : undefined))
    }
  })
  expect(kills).toBeGreaterThan(0)
  expect(undisturbed.size).toBeGreaterThan(100)
  expect([...disturbed.keys()]).toEqual([...undisturbed.keys()])
  expect(disturbed).toEqual(undisturbed)
})

test('click logs on one machine, as a user runs them: learnt, scored, drawn', async () => {
  const sandbox = new Sandbox()
  await sandbox.run(['data', 'synthesize', 'criteo', 'rows', '--rows', '20000'])
  const training = {
    batchSize: 128,
    updates: 120,
    evaluateEvery: 40,
    learningRate: { schedule: 'constant', rate: 0.1 },
  }
  const job = sandbox.write('job.json', clickJob(training))
  const { status, out, err } = await sandbox.run([
    ...['simulate', '--job', job, '--data', 'rows', '--out', 'run', '--engine', anyEngine],
  ])
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out).toMatch(/\nDLRM training finished\.\n$/)
  expect(sandbox.files('run')).toEqual(
    expect.arrayContaining(['server.log', 'server1.log', 'worker0.log', 'worker1.log', 'loss.svg', 'auc.svg']),
  )
  const result = sandbox.json('run/result.json')
  expect(result).toMatchObject({ workload: 'recommendation', dataSource: 'synthetic', steps: 120 })
  const { heldOut } = result as { heldOut: { auc: number; logLoss: number; accuracy: number } }
  expect(heldOut.auc).toBeGreaterThan(0.55)
  expect(heldOut.logLoss).toBeLessThan(0.69)
  expect(heldOut.accuracy).toBeGreaterThan(0.6)
})
