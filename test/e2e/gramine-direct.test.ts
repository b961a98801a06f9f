/** Server and workers in Gramine's library OS without SGX, quotes from the simulated platform: where Gramine is installed. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildEnclave, type EnclaveOptions } from '../../scripts/enclave.ts'
import { engineDirectory, requires } from '../requirements.ts'
import { eventually, Sandbox, smallJob } from './program.ts'

type Image = EnclaveOptions['image']

/** What Gramine is told to start: its manifest's name. */
const program = { development: 'cloister-development', production: 'cloister' }

requires('gramine', 'tensorflow-library').describe('in gramine-direct', () => {
  let images: string
  const running: ChildProcess[] = []

  beforeAll(async () => {
    images = mkdtempSync(join(tmpdir(), 'cloister-direct-'))
    // Keys of the processor exist on SGX alone: only the image that stops before it opens the mounts they seal may name one.
    await build('development', 'none')
    await build('production', '_sgx_mrenclave')
  })
  afterAll(() => {
    for (const child of running) child.kill('SIGKILL')
    rmSync(images, { recursive: true, force: true })
  })

  async function build(image: Image, mountKey: EnclaveOptions['mountKey']): Promise<void> {
    const { problems } = await buildEnclave({
      directory: join(images, image),
      image,
      sizes: 'default',
      engine: engineDirectory,
      node: process.execPath,
      libraryDirectory: '/usr/lib/x86_64-linux-gnu',
      mountKey,
      openModel: false,
      edmm: false,
      renderer: 'gramine-manifest',
    })
    expect(problems).toEqual([])
  }

  /** A directory for one process: the image's files, a configuration and a run of its own. */
  function place(
    sandbox: Sandbox,
    name: string,
    job: object,
    deployment: object,
    image: Image = 'development',
  ): string {
    for (const own of ['app', 'config', 'engine', 'run/model', 'run/checkpoints'])
      mkdirSync(sandbox.path(name, own), { recursive: true })
    for (const measured of ['app', 'engine']) {
      for (const file of readdirSync(join(images, image, measured))) {
        symlinkSync(join(images, image, measured, file), sandbox.path(name, measured, file))
      }
    }
    for (const file of ['hosts', `${program[image]}.manifest`])
      symlinkSync(join(images, image, file), sandbox.path(name, file))
    for (const shared of ['data', 'platform']) symlinkSync(sandbox.path(shared), sandbox.path(name, shared))
    sandbox.write(`${name}/config/job.json`, job)
    const simulated = { platform: { kind: 'simulated', directory: 'platform' } }
    sandbox.write(`${name}/config/deployment.json`, { ...simulated, ...deployment })
    return sandbox.path(name)
  }

  function start(directory: string, image: Image = 'development') {
    const env = { PATH: process.env.PATH, NODE_OPTIONS: '--require /nowhere', CLOISTER_ENGINE: '/nowhere' }
    const child = spawn('gramine-direct', [program[image], 'train', '--out', '/nowhere'], {
      cwd: directory,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.push(child)
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text
      })
    }
    const exited = new Promise<{ status: number | null; said: string }>((done) =>
      child.once('close', (status) => done({ status, said })),
    )
    return { child, exited, said: () => said }
  }

  /** A job that the simulated platform's enclaves may join, and data for it. */
  async function jobIn(sandbox: Sandbox): Promise<object> {
    await sandbox.synthesize('data', 20)
    const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0'])
    await platform.says(/PCCS/)
    await sandbox.prepare('policy', 'init', 'policy.json', '--root', 'platform/root.pem')
    return { ...smallJob(), admission: sandbox.json('policy.json') }
  }

  function listening({ child, said }: ReturnType<typeof start>): Promise<string> {
    return eventually(() => {
      if (child.exitCode !== null) throw new Error(said())
      return /listening.*?(127\.0\.0\.1:\d+)/.exec(said())?.[1]
    })
  }

  test('server and two workers train to the end; no argument and no variable of the host comes in', async () => {
    const sandbox = new Sandbox()
    const job = await jobIn(sandbox)
    const server = start(place(sandbox, 'server', job, { process: { role: 'server' } }))
    const address = await listening(server)
    const workers = [0, 1].map((index) => {
      const deployment = { process: { role: 'worker', index }, server: { addresses: [address] } }
      return start(place(sandbox, `worker${index}`, job, deployment))
    })
    for (const { exited } of [server, ...workers]) {
      const { status, said } = await exited
      expect(status, said).toBe(0)
    }
    expect(sandbox.json('server/run/result.json')).toMatchObject({ steps: 6, interrupted: false })
  })

  test('SIGTERM of the host stops it as outside', async () => {
    const sandbox = new Sandbox()
    const server = start(place(sandbox, 'server', await jobIn(sandbox), { process: { role: 'server' } }))
    await listening(server)
    server.child.kill('SIGTERM')
    const { status, said } = await server.exited
    expect(status, said).toBe(130)
  })

  test('a production image says that this is not SGX, and stops', async () => {
    const sandbox = new Sandbox()
    const deployment = { process: { role: 'server' }, platform: { kind: 'gramine' } }
    const { status, said } = await start(
      place(sandbox, 'server', await jobIn(sandbox), deployment, 'production'),
      'production',
    ).exited
    expect(status, said).toBe(1)
    expect(said).toContain('platform-not-sgx')
  })

  test.for(['app/enclave.mjs', 'app/image.json', 'engine/libtensorflow_framework.so.2'])(
    'with %s changed it does not come up',
    async (changed) => {
      const sandbox = new Sandbox()
      const directory = place(sandbox, 'server', await jobIn(sandbox), { process: { role: 'server' } })
      const file = join(directory, changed)
      const measured = readFileSync(file)
      rmSync(file)
      // One byte more, that neither Node nor TensorFlow would mind.
      writeFileSync(file, Buffer.concat([measured, Buffer.from('\n')]))
      const { status, said } = await start(directory).exited
      expect(status, said).not.toBe(0)
      expect(said).toContain(`Hash of trusted file '${changed}' does not match`)
    },
  )
})
