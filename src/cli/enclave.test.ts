/** What the host of an enclave may say, and what it may not: paths, above all. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { testContext } from '../../test/cli-context.ts'
import { smallJob } from '../../test/e2e/program.ts'
import { loadDeployment } from '../config/load.ts'
import { enclave, roleOptions } from './enclave.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cloister-enclave-'))
  for (const part of ['app', 'config', 'run']) mkdirSync(join(directory, part))
  write('app/image.json', { tensorflowThreads: 2 })
  write('config/job.json', smallJob())
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const write = (file: string, value: unknown) => writeFileSync(join(directory, file), JSON.stringify(value))
const worker = { process: { role: 'worker', index: 1 }, engine: { choice: 'javascript' } }

async function run(deployment: object) {
  write('config/deployment.json', deployment)
  const { context, printed } = testContext({ cwd: directory })
  const status = await enclave(context)
  return { status, ...printed }
}

describe('an enclave', () => {
  test('that is no enclave says what is missing', async () => {
    const { status, err } = await run(worker)
    expect(status).toBe(1)
    expect(err).toContain("platform-absent: expected Gramine's /dev/attestation")
  })

  test('writes its log where the image says', async () => {
    await run(worker)
    expect(readdirSync(join(directory, 'run'))).toContain('worker1.log')
  })

  test('runs the job that was measured with it, if there is one', async () => {
    mkdirSync(join(directory, 'measured'))
    write('measured/job.json', { ...smallJob(), workload: 'measured' })
    expect((await run(worker)).err).toContain('measured/job.json: workload')
    write('measured/job.json', smallJob())
    write('config/job.json', { workload: 'of the host' })
    expect((await run(worker)).err).toContain('platform-absent')
  })

  test.each([
    ['no process', { process: undefined }, 'enclave-process-missing'],
    ['another role', { process: { role: 'train' } }, 'config-invalid'],
    ['an index that is none', { process: { role: 'worker', index: -1 } }, 'config-invalid'],
    ['a library of the host', { engine: { choice: 'tensorflow', directory: 'data' } }, 'enclave-path-chosen'],
    ['another data directory', { data: { directory: '/cloister/run' } }, 'enclave-path-chosen'],
    ['another run directory', { out: '/tmp' }, 'enclave-path-chosen'],
    ['private data as configuration', { collateral: { qcnl: 'data/train.txt' } }, 'enclave-path-chosen'],
    ['a way out of config', { collateral: { qcnl: 'config/../data/x' } }, 'enclave-path-chosen'],
    ['another file of the system', { collateral: { bundles: ['config/a', '/etc/hosts'] } }, 'enclave-path-chosen'],
    ['a cache elsewhere', { collateral: { cacheDirectory: 'run/model' } }, 'enclave-path-chosen'],
    ['a simulated platform elsewhere', { platform: { kind: 'simulated', directory: 'data' } }, 'enclave-path-chosen'],
  ])('refuses %s', async (_, change, code) => {
    const { status, err } = await run({ ...worker, ...change })
    expect(status).toBe(1)
    expect(err).toContain(code)
    expect(err).not.toContain('platform-absent')
  })

  test.each([
    ['addresses', { server: { addresses: ['10.0.0.5:8443'] } }],
    ['collateral files in config', { collateral: { qcnl: 'config/sgx_default_qcnl.conf' } }],
    ['bundles in config', { collateral: { bundles: ['config/a.json', 'config/b.json'] } }],
    ['a cache of collateral', { collateral: { cacheDirectory: 'run/collateral' } }],
  ])('takes %s', async (_, change) => {
    expect((await run({ ...worker, ...change })).err).toContain('platform-absent')
  })

  test.each([
    [0, 2],
    [1, 1],
    [127, 2],
  ])('of %i threads takes %i where the image allows two', (threads, taken) => {
    write('config/deployment.json', { engine: { threads } })
    const deployment = loadDeployment(join(directory, 'config/deployment.json'))
    expect(roleOptions(directory, deployment)).toMatchObject({ threads: taken, resume: true })
  })
})
