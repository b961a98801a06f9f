// SPDX-License-Identifier: Apache-2.0
/**
 * The scripts of the reference system with a container engine that only records what it is told: arguments, and every failure explained.
 * deploy/test/containers.sh runs them with a real one.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { directory, freshDirectories, program, run, scripts, told } from './scripts.ts'

freshDirectories()

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
    ['a server with a leading zero', ['ps01', 'image'], {}, 'got ps01'],
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
