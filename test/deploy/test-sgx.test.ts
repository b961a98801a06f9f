// SPDX-License-Identifier: Apache-2.0
/** test-sgx.sh with a `cloister` that only records what it is told. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadDeployment } from '../../src/config/load.ts'
import { directory, freshDirectories, program, run, told } from './scripts.ts'

freshDirectories()

describe('test-sgx.sh', () => {
  const simulated = (changes: Record<string, string> = {}) => ({
    CLOISTER_PLATFORM: 'simulated',
    CLOISTER_DIRECTORY: join(directory, 'run'),
    CLOISTER_PLATFORM_DIRECTORY: join(directory, 'platform'),
    CLOISTER_JOB: join(directory, 'job.json'),
    CLOISTER_START_SECONDS: '1',
    ...changes,
  })
  /** Records what it is told; `policy init` prints a policy; a role lasts for `seconds` and ends with `status`. */
  const cloister = (status = 0, seconds = 0): void => {
    mkdirSync(join(directory, 'platform'))
    writeFileSync(join(directory, 'platform/root.pem'), 'x')
    writeFileSync(join(directory, 'job.json'), '{"workers": 2}')
    program(
      'cloister',
      `case "$1" in policy) echo '{"version": 1}'; exit ;; esac
printf '%s\\n' "$@" >>'${directory}/told'; echo 'address-in-use: said so' >&2; sleep ${seconds}; exit ${status}`,
    )
  }

  test('starts the server on the port of its address, with policy, health and the reference’s log', () => {
    cloister()
    const { status, out } = run('test-sgx.sh', ['ps0', 'ps0.example:9100'], simulated({ CLOISTER_FOREGROUND: '0' }))
    expect({ status, out }).toMatchObject({ status: 0, out: expect.stringContaining('run/server.log') })
    const args = told().join(' ')
    expect(args).toMatch(/^server --job .*job\.json --set admission=\{"version": 1\} /)
    expect(args).toMatch(/--health 0\.0\.0\.0:9001 .*--listen 0\.0\.0\.0:9100/)
    expect(args).toContain('--platform-machine server')
    expect(args).not.toContain('--resume')
    expect(readdirSync(join(directory, 'run'))).toEqual(expect.arrayContaining(['ps0.log', 'ps0-gramine-python.log']))
  })

  test('a worker that ran before goes on; a job with a policy keeps it; settings and data come in', () => {
    cloister()
    const environment = simulated({ CLOISTER_JOB_SET: 'training.updates=7\nseed=2', CLOISTER_DATASET: directory })
    writeFileSync(environment.CLOISTER_JOB, '{"admission": {}}')
    mkdirSync(environment.CLOISTER_DIRECTORY)
    writeFileSync(join(environment.CLOISTER_DIRECTORY, 'worker12.log'), '')
    expect(run('test-sgx.sh', ['worker12', 'ps0:9000'], environment).status).toBe(0)
    const args = told().join(' ')
    expect(args).toContain('--set training.updates=7 --set seed=2')
    expect(args).toContain(`--data ${directory}`)
    expect(args).toContain('--resume --index 12 --connect ps0:9000')
    expect(args).not.toContain('admission')
  })

  test('several servers: each on the port of its own address, followers and workers connect', () => {
    cloister()
    const environment = simulated({ CLOISTER_FOREGROUND: '1' })
    expect(run('test-sgx.sh', ['ps1', 'ps0.example:9100', 'ps1.example:9101'], environment).status).toBe(0)
    // On one machine's own network each server needs a port of its own for probes too.
    expect(told().join(' ')).toMatch(
      /--health 0\.0\.0\.0:9011 .*--index 1 --listen 0\.0\.0\.0:9101 --connect ps0\.example:9100/,
    )
    expect(told().filter((argument) => argument === '--connect')).toHaveLength(1)
    expect(run('test-sgx.sh', ['ps1', 'ps0.example:9100'], environment).status).toBe(0)
    expect(told().join(' ')).toContain('--listen 0.0.0.0:9100')
    expect(run('test-sgx.sh', ['worker0', 'ps0.example:9100', 'ps1.example:9101'], environment).status).toBe(0)
    expect(told().join(' ')).toContain('--index 0 --connect ps0.example:9100 --connect ps1.example:9101')
  })

  test('a role that runs is left alone', () => {
    cloister(0, 3)
    expect(run('test-sgx.sh', ['worker0'], simulated())).toMatchObject({ status: 0 })
    expect(run('test-sgx.sh', ['worker0'], simulated()).out).toContain('runs already')
    expect(told().filter((argument) => argument === 'worker')).toHaveLength(1)
  })

  test('a role that does not start says why', () => {
    cloister(1)
    const { status, err } = run('test-sgx.sh', ['ps0'], simulated())
    expect(status).toBe(1)
    expect(err).toContain('address-in-use: said so')
    expect(err).toContain('ended with status 1')
  })

  test('in an enclave the job and the deployment are files, and the arguments say nothing', () => {
    cloister()
    program('gramine-sgx', `echo "gramine-sgx $*" >>'${directory}/told'; pwd >>'${directory}/told'`)
    for (const path of ['dev/sgx_enclave', 'var/run/aesmd/aesm.socket']) {
      mkdirSync(join(directory, path, '..'), { recursive: true })
      writeFileSync(join(directory, path), '')
    }
    const environment = simulated({
      CLOISTER_PLATFORM: 'enclave',
      CLOISTER_TEST_ROOT: directory,
      CLOISTER_ENCLAVE_DIRECTORY: directory,
      CLOISTER_PCCS: 'https://pccs.example:8081/sgx/certification/v4/',
    })
    const deployment = (): unknown => JSON.parse(readFileSync(join(directory, 'run/config/deployment.json'), 'utf8'))
    expect(run('test-sgx.sh', ['worker3', 'ps0.example:9000'], environment)).toMatchObject({ status: 0 })
    expect(deployment()).toEqual({
      process: { role: 'worker', index: 3 },
      server: { addresses: ['ps0.example:9000'] },
      collateral: { pccs: 'https://pccs.example:8081/sgx/certification/v4/' },
    })
    expect(loadDeployment(join(directory, 'run/config/deployment.json')).process).toEqual({ role: 'worker', index: 3 })
    expect(told().slice(-2)).toEqual(['gramine-sgx cloister', directory])
    expect(told().join(' ')).toMatch(
      /^job check \S+job\.json --set admission=\{"version": 1\} --out config\/job\.json /,
    )
    expect(run('test-sgx.sh', ['ps0', 'ps0.example:9100'], environment)).toMatchObject({ status: 0 })
    expect(deployment()).toMatchObject({
      process: { role: 'server', index: 0 },
      server: { listen: { host: '0.0.0.0', port: 9100 }, health: { host: '0.0.0.0', port: 9001 } },
    })
    const metered = { ...environment, CLOISTER_METRICS: '0.0.0.0:9464' }
    expect(run('test-sgx.sh', ['ps1', 'ps0.example:9100', '[::1]:9101'], metered)).toMatchObject({ status: 0 })
    expect(deployment()).toMatchObject({
      process: { role: 'server', index: 1 },
      server: { addresses: ['ps0.example:9100', '[::1]:9101'], listen: { host: '0.0.0.0', port: 9101 } },
      metrics: { host: '0.0.0.0', port: 9464 },
    })
    expect(loadDeployment(join(directory, 'run/config/deployment.json'))).toMatchObject({ metrics: { port: 9464 } })
  })

  test.each([
    ['no role', [], {}, 'Usage:'],
    ['a role that is none', ['ps'], {}, 'got ps'],
    ['an address without port', ['worker0', 'ps0'], {}, 'got ps0'],
    ['a second address without port', ['worker0', 'ps0:1', 'x'], {}, 'got x'],
    ['an address that would end a string of JSON', ['worker0', 'ps0":1'], {}, 'got ps0":1'],
    ['a workload that is none', ['worker0'], { CLOISTER_WORKLOAD: 'speech' }, 'got speech'],
  ])('refuses %s', (_, args, env, message) => {
    cloister()
    const { status, err } = run('test-sgx.sh', args, simulated(env))
    expect(status).toBe(2)
    expect(err).toContain(message)
    expect(existsSync(join(directory, 'told'))).toBe(false)
  })

  test.each([['a job that cannot be read', { CLOISTER_JOB: '/nowhere.json' }, '/nowhere.json']])(
    'explains %s',
    (_, env, message) => {
      cloister()
      const { status, err } = run('test-sgx.sh', ['worker0'], simulated(env))
      expect(status).toBe(1)
      expect(err).toContain(message)
      expect(err).toContain('  → ')
    },
  )
})
