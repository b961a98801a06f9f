// SPDX-License-Identifier: Apache-2.0
/**
 * The scripts of the reference system with a container engine that only records what it is told: arguments, and every failure explained.
 * deploy/test/containers.sh runs them with a real one.
 */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadDeployment } from '../../src/config/load.ts'

const scripts = resolve(import.meta.dirname, '../../deploy/docker')
let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cloister-scripts-'))
  mkdirSync(join(directory, 'bin'))
  mkdirSync(join(directory, '.config/gramine'), { recursive: true })
  writeFileSync(join(directory, '.config/gramine/enclave-key.pem'), 'x')
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

interface Ran {
  readonly status: number | null
  readonly out: string
  readonly err: string
}

/** PATH has the fakes before the system's programs; nothing else of the environment comes in. */
function run(script: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Ran {
  const { status, stdout, stderr } = spawnSync('/bin/sh', [join(scripts, script), ...args], {
    env: { PATH: `${join(directory, 'bin')}:/usr/bin:/bin`, HOME: directory, TMPDIR: directory, ...env },
    encoding: 'utf8',
    timeout: 30_000,
  })
  return { status, out: stdout, err: stderr }
}

function program(name: string, body: string): void {
  const file = join(directory, 'bin', name)
  writeFileSync(file, `#!/bin/sh\n${body}\n`)
  chmodSync(file, 0o755)
}

interface Engine {
  readonly platform?: string
  /** Of the container that is asked for; none is there when absent. */
  readonly state?: string
  readonly hasImage?: boolean
  readonly answers?: boolean
  readonly starts?: boolean
}

/** Records `run` and `build` one argument a line. */
function engine({
  platform = 'simulated',
  state = '',
  hasImage = true,
  answers = true,
  starts = true,
}: Engine = {}): void {
  program(
    'docker',
    `case "$1 $2" in
  "info "*) exit ${answers ? 0 : 1} ;;
  "--version "*) echo 'Docker version 27.0.0' ;;
  "image inspect") ${hasImage ? '' : 'exit 1'}
    case "$4" in *cloister.platform*) echo '${platform}' ;; *cloister.workload*) echo image_classification ;; esac ;;
  "container inspect") ${state === '' ? 'exit 1' : `echo ${state}`} ;;
  *) printf '%s\\n' "$@" >>'${directory}/told'; cat '${directory}'/tmp.* >'${directory}/secret' 2>/dev/null; exit ${starts ? 0 : 125} ;;
esac`,
  )
}

const told = (): string[] => readFileSync(join(directory, 'told'), 'utf8').trimEnd().split('\n')

describe('all scripts', () => {
  const names = readdirSync(scripts).filter((name) => /^(build_|start_|test-|setup_)/.test(name))

  test('are those of the reference system', () => {
    expect(names.sort()).toEqual(['build_docker_image.sh', 'setup_azure_vm.sh', 'start_container.sh', 'test-sgx.sh'])
  })

  test.each(names)('%s --help tells its arguments', (name) => {
    const { status, out, err } = run(name, ['--help'])
    expect({ status, err }).toEqual({ status: 0, err: '' })
    expect(out).toMatch(new RegExp(`^Usage: (sudo )?${name}`))
  })
})

describe('build_docker_image.sh', () => {
  test('builds the workload and flavour it is told, for enclaves unless told otherwise', () => {
    engine()
    const key = join(directory, 'key.pem')
    writeFileSync(key, 'x')
    const { status, out } = run('build_docker_image.sh', ['recommendation_system', 'anolisos'], {
      CLOISTER_ENCLAVE_KEY: key,
    })
    expect(status).toBe(0)
    expect(out).toContain('image: horizontal_fl:anolisos_recommendation_system_latest')
    const args = told()
    for (const argument of [
      'PLATFORM=enclave',
      'FLAVOUR=anolisos',
      'WORKLOAD=recommendation_system',
      'ENCLAVE_SIZES=recommendation',
      `id=enclave_key,src=${key}`,
    ])
      expect(args).toContain(argument)
    expect(args.find((argument) => argument.startsWith('BASE_IMAGE='))).toMatch(/anolisos/)
  })

  test.each([
    ['as an argument', ['http://user:word@proxy.example:3128'], {}],
    ['as the reference’s variable', [], { proxy_server: 'http://user:word@proxy.example:3128' }],
  ])('a proxy %s is a secret in a file that is gone afterwards', (_, extra, env) => {
    engine()
    expect(run('build_docker_image.sh', ['image_classification', 'azure', ...extra], env).status).toBe(0)
    const secret = told().find((argument) => argument.startsWith('id=proxy,src='))!
    expect(told().join('\n')).not.toContain('word')
    expect(readFileSync(join(directory, 'secret'), 'utf8')).toBe('http://user:word@proxy.example:3128\n')
    expect(existsSync(secret.slice('id=proxy,src='.length))).toBe(false)
  })

  test('certificates and registries come as secrets', () => {
    engine()
    const file = join(directory, 'ca.pem')
    writeFileSync(file, 'x')
    expect(run('build_docker_image.sh', ['image_classification', 'default'], { CLOISTER_CA: file }).status).toBe(0)
    expect(told()).toContain(`id=ca,src=${file}`)
  })

  test.each([
    ['no arguments', [], {}, 'Usage:'],
    ['a workload that is none', ['speech', 'default'], {}, 'got speech'],
    ['a flavour that is none', ['image_classification', 'aws'], {}, 'got aws'],
    ['a proxy that is no URL', ['image_classification', 'azure', 'proxy:1'], {}, 'got proxy:1'],
    ['too many arguments', ['image_classification', 'azure', 'http://p:1', 'x'], {}, 'Usage:'],
    ['a platform that is none', ['image_classification', 'azure'], { CLOISTER_PLATFORM: 'tdx' }, 'got tdx'],
    [
      'an enclave without a key',
      ['image_classification', 'azure'],
      { CLOISTER_ENCLAVE_KEY: '/no.pem' },
      'openssl genrsa',
    ],
    ['a secret that is not there', ['image_classification', 'azure'], { CLOISTER_CA: '/nowhere' }, '/nowhere'],
  ])('refuses %s', (_, args, env, message) => {
    engine()
    const { status, err } = run('build_docker_image.sh', args, env)
    expect(status).toBe(2)
    expect(err).toContain(message)
    expect(existsSync(join(directory, 'told'))).toBe(false)
  })

  test.each([
    [
      'no container engine',
      () => program('unrelated', ''),
      { CLOISTER_DOCKER: 'no-such-engine' },
      'no-such-engine is not on PATH',
    ],
    ['one that does not answer', () => engine({ answers: false }), {}, 'does not answer'],
    ['a build that fails', () => engine({ starts: false }), {}, 'the build failed'],
  ])('explains %s', (_, prepare, env, message) => {
    prepare()
    const { status, err } = run('build_docker_image.sh', ['image_classification', 'default'], env)
    expect(status).toBe(1)
    expect(err).toContain(message)
    expect(err).toContain('  → ')
  })
})

describe('start_container.sh', () => {
  test('a simulated container gets no device, a read-only root and no privileges', () => {
    engine()
    const { status, out, err } = run('start_container.sh', ['worker0', 'image', '10.0.0.7'], {
      CLOISTER_DATASET: directory,
    })
    expect(status).toBe(0)
    expect(err).toContain('SIMULATED')
    expect(out).toContain('test-sgx.sh worker0')
    const args = told().join(' ')
    for (const part of [
      '--read-only',
      '--cap-drop ALL',
      '--security-opt no-new-privileges',
      '--network host',
      '--name worker0',
      '--add-host pccs.service.com:10.0.0.7',
      `--volume ${directory}:/dataset:ro`,
      '--volume cloister-worker0-run:/image_classification',
      '--volume cloister-platform:/var/lib/cloister/platform',
    ])
      expect(args).toContain(part)
    expect(args).not.toContain('--device')
    expect(args).toMatch(/--entrypoint sleep image infinity$/)
  })

  test('starting it again is harmless', () => {
    engine({ state: 'running' })
    expect(run('start_container.sh', ['ps0', 'image'])).toMatchObject({
      status: 0,
      out: expect.stringContaining('runs already'),
    })
    expect(existsSync(join(directory, 'told'))).toBe(false)
    engine({ state: 'exited' })
    expect(run('start_container.sh', ['ps0', 'image'])).toMatchObject({
      status: 0,
      out: expect.stringContaining('started again'),
    })
    expect(told()).toEqual(['start', 'ps0'])
  })

  test.each([
    ['one argument', ['ps0'], {}, 'Usage:'],
    ['a role that is none', ['ps', 'image'], {}, 'got ps'],
    ['a worker without number', ['worker', 'image'], {}, 'got worker'],
    ['a name for the PCCS', ['ps0', 'image', 'pccs.example'], {}, 'got pccs.example'],
    ['data that are not there', ['worker0', 'image'], { CLOISTER_DATASET: '/nowhere' }, '/nowhere'],
    ['a relative path', ['worker0', 'image'], { CLOISTER_JOB: '.' }, 'absolute'],
  ])('refuses %s', (_, args, env, message) => {
    engine()
    const { status, err } = run('start_container.sh', args, env)
    expect(status).toBe(2)
    expect(err).toContain(message)
    expect(existsSync(join(directory, 'told'))).toBe(false)
  })

  test.each([
    ['an image that is missing', { hasImage: false }, 'no image'],
    ['an image of somebody else', { platform: '' }, 'no image of this project'],
    ['an engine that is down', { answers: false }, 'does not answer'],
    ['an engine that refuses', { starts: false }, 'could not start worker0'],
  ] satisfies [string, Engine, string][])('explains %s', (_, fake, message) => {
    engine(fake)
    const { status, err } = run('start_container.sh', ['worker0', 'image'])
    expect(status).toBe(1)
    expect(err).toContain(message)
    expect(err).toContain('  → ')
  })
})

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
    expect(told().join(' ')).toContain('--index 1 --listen 0.0.0.0:9101 --connect ps0.example:9100')
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

describe.runIf(!existsSync('/dev/sgx_enclave'))('without SGX', () => {
  test('start_container.sh and test-sgx.sh of the enclave variant say so', () => {
    engine({ platform: 'enclave' })
    const host = run('start_container.sh', ['worker0', 'image'])
    expect(host).toMatchObject({ status: 1, err: expect.stringContaining('no SGX device') })
    program('cloister', 'exit 0')
    const inside = run('test-sgx.sh', ['worker0'], { CLOISTER_DIRECTORY: join(directory, 'run') })
    expect(inside).toMatchObject({ status: 1, err: expect.stringContaining('no SGX device in this container') })
  })
})

describe('setup_azure_vm.sh', () => {
  const machine = (release: string, devices: readonly string[] = []): Record<string, string> => {
    mkdirSync(join(directory, 'etc/apt/sources.list.d'), { recursive: true })
    mkdirSync(join(directory, 'dev'))
    writeFileSync(join(directory, 'etc/os-release'), release)
    for (const device of devices) writeFileSync(join(directory, 'dev', device), '')
    return { CLOISTER_TEST_ROOT: directory }
  }
  const jammy = 'ID=ubuntu\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\nPRETTY_NAME="Ubuntu 22.04"\n'

  test.each([
    ['another system', 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n', 'got Debian 12'],
    ['a machine without SGX', jammy, 'no SGX device'],
  ])('explains %s', (_, release, message) => {
    const { status, err } = run('setup_azure_vm.sh', [], machine(release))
    expect(status).toBe(1)
    expect(err).toContain(message)
  })

  test('installs nothing where all is there, and makes sure that aesmd runs', () => {
    program('id', 'echo 0')
    program('dpkg-query', "echo 'install ok installed'")
    program('apt-get', `echo apt-get "$@" >>'${directory}/told'`)
    program('systemctl', `echo "$@" >>'${directory}/told'`)
    const { status, out } = run('setup_azure_vm.sh', [], machine(jammy, ['sgx_enclave']))
    expect(status).toBe(0)
    expect(out).toContain('aesmd is active')
    expect(told()).toEqual(['enable --now aesmd', 'is-active --quiet aesmd'])
  })

  test('installs what is missing from the repositories of its release, and says when aesmd does not start', () => {
    program('id', 'echo 0')
    program('dpkg-query', 'exit 1')
    program('curl', 'exit 0')
    program('apt-get', `echo apt-get "$@" >>'${directory}/told'`)
    program('systemctl', 'exit 1')
    const { status, err } = run('setup_azure_vm.sh', [], machine(jammy, ['sgx_enclave']))
    expect(status).toBe(1)
    expect(err).toContain('aesmd does not start')
    expect(told().join('\n')).toMatch(/install -y .*sgx-aesm-service.* az-dcap-client/)
    const sources = (name: string) => readFileSync(join(directory, `etc/apt/sources.list.d/${name}.list`), 'utf8')
    expect(sources('intel-sgx')).toMatch(/ jammy main$/m)
    expect(sources('microsoft-prod')).toContain('/ubuntu/22.04/prod jammy main')
  })
})
