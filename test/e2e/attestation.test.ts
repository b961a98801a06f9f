/** Attestation as a data owner meets it: docs/attestation.md by hand, code that differs, and peers that fall out of policy. */
import { execFileSync } from 'node:child_process'
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Judgement } from '../../src/cli/judgement.ts'
import type { RunResult } from '../../src/cli/summary.ts'
import { anyEngine, eventually, root, Sandbox, type Started, smallJob } from './program.ts'

const simulated = ['--platform', 'simulated', '--platform-directory', 'D', '--engine', anyEngine]

/** A simulated platform with its PCCS, a policy that names its root, and a job with that policy. */
async function deployed(job: Parameters<typeof smallJob>[0] = {}) {
  const sandbox = new Sandbox()
  const platform = sandbox.start(['platform', 'serve', 'D', '--port', '0', '--json'])
  await platform.says(/\n/)
  await sandbox.prepare('policy', 'init', 'policy.json', '--root', 'D/root.pem')
  const file = sandbox.write('job.json', { ...smallJob(job), admission: sandbox.json('policy.json') })
  return { sandbox, file }
}

async function listening(sandbox: Sandbox, job: string): Promise<{ server: Started; address: string }> {
  const server = sandbox.start(['server', '--job', job, ...simulated, '--listen', '127.0.0.1:0', '--out', 'server'])
  const [, address] = await server.says(/listening on (\S+)/)
  return { server, address: address as string }
}

async function judgementOf(sandbox: Sandbox, subject: string, options: readonly string[]) {
  const { status, out } = await sandbox.run(['verify', subject, '--json', ...options])
  return { status, judgement: JSON.parse(out) as Judgement }
}

test('by hand: look first, join, and judge again afterwards', async () => {
  const { sandbox, file } = await deployed({ data: { partition: { scheme: 'own' } } })
  const { server, address } = await listening(sandbox, file)
  const { mrEnclave } = JSON.parse((await sandbox.run(['measure', '--json'])).out) as { mrEnclave: string }
  const looking = ['--policy', 'policy.json', '--qcnl', 'D/sgx_default_qcnl.conf']

  const nobody = await judgementOf(sandbox, address, looking)
  expect([nobody.status, nobody.judgement.reasons.map(({ code }) => code)]).toEqual([1, ['measurement-mismatch']])
  expect(nobody.judgement.reasons[0]?.hint).toContain('--self')
  const looked = await judgementOf(sandbox, address, [...looking, '--self', mrEnclave])
  expect(looked.status).toBe(0)
  expect(looked.judgement).toMatchObject({ verdict: 'accepted', tcbStatus: 'UpToDate', measurements: { mrEnclave } })

  const workers = await Promise.all(
    [0, 1].map(async (index) => {
      const data = `data-${index}`
      await sandbox.run(['data', 'synthesize', 'cifar10', data, '--records', '50', '--seed', `${index}`])
      const machine = ['--platform-machine', `owner-${index}`]
      const joining = ['--index', `${index}`, '--connect', address, '--data', data, '--out', `worker-${index}`]
      return sandbox.start(['worker', '--job', file, ...simulated, ...machine, ...joining])
    }),
  )
  const ended = await Promise.all([server, ...workers].map((party) => party.exited))
  expect(ended.map(({ status }) => status)).toEqual([0, 0, 0])

  // Nobody can take this for SGX: start, log, events, result, evidence.
  for (const { out } of ended) expect(out).toContain('platform-simulated')
  for (const log of ['server/server.log', 'worker-0/worker0.log', 'worker-1/worker1.log']) {
    expect(sandbox.read(log)).toMatch(/platform simulated\n.*WARNING platform-simulated/)
    expect(sandbox.read(log)).toMatch(
      /joined: simulated \(NOT PROTECTED\), MRENCLAVE [0-9a-f]{64}, TCB UpToDate, PPID /,
    )
  }
  const started = sandbox.events('server').find((event) => event.kind === 'process-started')
  expect(started).toMatchObject({ platform: 'simulated' })
  const result = sandbox.json('server/result.json') as RunResult
  expect(result.platform).toBe('simulated')
  expect(result.peers.map(({ evidence }) => evidence.platform)).toEqual(Array(2).fill('simulated (NOT PROTECTED)'))

  // The record suffices to judge each peer again, here and by somebody else.
  for (const name of [
    'server/evidence/server-peer-1',
    'server/evidence/server-peer-2',
    'worker-1/evidence/worker1-peer-1',
  ]) {
    const record = sandbox.json(`${name}.json`) as { time: string; root: string; self: string }
    expect(record).toMatchObject({ root: 'simulated', self: mrEnclave })
    const policy = join(name, '../policy.json')
    const given = ['--policy', policy, '--collateral', `${name}.collateral.json`, '--self', record.self]
    const again = await judgementOf(sandbox, `${name}.quote`, [...given, '--at', record.time])
    expect([again.status, again.judgement.verdict]).toEqual([0, 'accepted'])
  }

  // Keys are made and used in memory: no file of any party has one, nor what they print.
  const written = ['server', 'worker-0', 'worker-1'].flatMap((directory) =>
    sandbox
      .files(directory)
      .filter((name) => /\.\w+$/.test(name))
      .map((name) => sandbox.read(join(directory, name))),
  )
  for (const text of [...written, ...ended.flatMap(({ out, err }) => [out, err])])
    expect(text).not.toContain('PRIVATE KEY')
})

describe('refused at the door', () => {
  test('changed code is another enclave: both sides say so', async () => {
    const { sandbox, file } = await deployed()
    const { server, address } = await listening(sandbox, file)
    const copy = sandbox.path('changed')
    for (const entry of ['dist', 'package.json', 'package-lock.json']) {
      cpSync(join(root, entry), join(copy, entry), { recursive: true })
    }
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
    const worker = join(copy, 'dist/federation/worker.js')
    writeFileSync(worker, `${readFileSync(worker, 'utf8')}\n// One comment more.\n`)
    const data = await sandbox.synthesize()
    const joining = ['--index', '0', '--connect', address, '--data', data, '--out', 'worker']
    const started = sandbox.start(['worker', '--job', file, ...simulated, ...joining], {
      entry: join(copy, 'dist/main.js'),
    })
    const { status, err } = await started.exited
    expect(status).toBe(1)
    expect(err).toMatch(/policy-refused|ratls-refused-by-peer/)
    expect(err).toContain('MRENCLAVE')
    await server.says(/refused 127\.0\.0\.1:\d+: (policy-refused|ratls-refused-by-peer): .*MRENCLAVE/)
    server.kill('SIGTERM')
    await server.exited
    expect(sandbox.events('server').some((event) => event.kind === 'peer-joined')).toBe(false)
  })

  test('a policy that names Intel refuses a simulated platform', async () => {
    const { sandbox } = await deployed()
    await sandbox.prepare('policy', 'init', 'intel.json')
    const file = sandbox.write('intel-job.json', { ...smallJob(), admission: sandbox.json('intel.json') })
    const { server, address } = await listening(sandbox, file)
    const data = await sandbox.synthesize()
    const joining = ['--index', '0', '--connect', address, '--data', data, '--out', 'worker']
    const { status, err } = await sandbox.start(['worker', '--job', file, ...simulated, ...joining]).exited
    expect([status, err]).toEqual([1, expect.stringMatching(/chain-untrusted-root/)])
    server.kill('SIGTERM')
    await server.exited
  })

  test('a production build does not simulate', async () => {
    const { sandbox, file } = await deployed()
    const copy = sandbox.path('production')
    cpSync(join(root, 'dist'), join(copy, 'dist'), { recursive: true })
    cpSync(join(root, 'package.json'), join(copy, 'package.json'))
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
    execFileSync(process.execPath, ['--import', 'tsx', 'scripts/production.ts', join(copy, 'dist')], { cwd: root })
    const server = sandbox.start(['server', '--job', file, ...simulated], { entry: join(copy, 'dist/main.js') })
    const { status, err } = await server.exited
    expect([status, err]).toEqual([1, expect.stringContaining('platform-simulated-refused')])
  })
})

test('peers that fall out of policy are dropped in the middle of the job, with a reason on both sides', async () => {
  const { sandbox, file } = await deployed({ updates: 1_000_000 })
  const deployment = {
    platform: { kind: 'simulated', directory: 'D' },
    collateral: { qcnl: 'D/sgx_default_qcnl.conf' },
  }
  const data = await sandbox.synthesize()
  const given = ['--deployment', sandbox.write('deployment.json', deployment), '--data', data, '--out', 'run']
  const run = sandbox.start(['simulate', '--job', file, ...given, '--engine', anyEngine])
  await run.says(/server: worker1 joined[\s\S]*worker0 joined|server: worker0 joined[\s\S]*worker1 joined/)
  const left = (peer: string) => () => sandbox.events('run').find((it) => it.kind === 'peer-left' && it.peer === peer)

  // One machine's certificate is revoked: its worker goes, the other goes on. Collateral is asked for again after a minute.
  await sandbox.run(['platform', 'set', 'D', '--variant', 'revoked-pck@worker1'])
  const revoked = { reason: 'refused', error: { code: 'certificate-revoked' } }
  expect(await eventually(left('worker1'))).toMatchObject(revoked)
  expect(sandbox.read('run/server.log')).toContain('worker1 left: refused (certificate-revoked: ')
  const told = () =>
    sandbox.read('run/worker1.log').includes('FAILED refused-by-server: certificate-revoked: ') ? true : undefined
  await eventually(told)
  expect(left('worker0')()).toBeUndefined()

  // A new TCB evaluation makes every machine out of date: nobody is left to go on with.
  await sandbox.run(['platform', 'set', 'D', '--variant', 'tcb-recovery'])
  const { status } = await run.exited
  expect(status).toBe(1)
  const failed = sandbox.events('run').find((it) => it.kind === 'failed' && it.source === 'worker0')
  expect(failed).toMatchObject({ error: { message: expect.stringContaining('got OutOfDate') } })
})
