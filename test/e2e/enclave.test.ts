/** The file that runs inside the enclave, as a bundle and with what Gramine lacks taken away: server and workers, and what their host tries. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bundle } from '../../scripts/bundle.ts'
import { engineDirectory, gramineLimits, requires } from '../requirements.ts'
import { anyEngine, Sandbox, type StartOptions, smallJob } from './program.ts'

const images = mkdtempSync(join(tmpdir(), 'cloister-images-'))

beforeAll(async () => {
  for (const image of ['development', 'production'] as const) {
    await bundle({ directory: join(images, image), image })
    writeFileSync(join(images, image, 'app/image.json'), '{"tensorflowThreads": 1}')
  }
})

afterAll(() => rmSync(images, { recursive: true, force: true }))

/** An image's directory as the manifest mounts it, for one process. */
function enclaveIn(sandbox: Sandbox, name: string, { image = 'development', deployment = {}, job = {} as unknown }) {
  mkdirSync(sandbox.path(name, 'config'), { recursive: true })
  cpSync(join(images, image, 'app'), sandbox.path(name, 'app'), { recursive: true })
  symlinkSync(engineDirectory, sandbox.path(name, 'engine'))
  for (const shared of ['data', 'platform']) symlinkSync(sandbox.path(shared), sandbox.path(name, shared))
  sandbox.write(`${name}/config/job.json`, job)
  sandbox.write(`${name}/config/deployment.json`, {
    platform: { kind: 'simulated', directory: 'platform' },
    engine: { choice: anyEngine },
    ...deployment,
  })
  return (args: readonly string[] = [], options: StartOptions = {}) =>
    sandbox.start(args, { entry: sandbox.path(name, 'app/enclave.mjs'), cwd: name, ...options })
}

async function simulatedPlatform(sandbox: Sandbox) {
  const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0'])
  await platform.says(/PCCS/)
  await sandbox.prepare('policy', 'init', 'policy.json', '--root', 'platform/root.pem')
  return { ...smallJob(), admission: sandbox.json('policy.json') }
}

requires('gramine-limits').describe('the bundle of the enclave image', () => {
  test('server and two workers train to the end, whatever arguments and variables the host adds', async () => {
    const sandbox = new Sandbox()
    await sandbox.synthesize('data', 20)
    const job = await simulatedPlatform(sandbox)
    const hostile = {
      nodeFlags: ['--require', gramineLimits],
      env: {
        CLOISTER_ENGINE: '/nowhere',
        CLOISTER_DATA: '/nowhere',
        CLOISTER_CACHE: '/nowhere',
        QCNL_CONF_PATH: '/nowhere',
      },
    }
    const args = ['train', '--job', '/nowhere', '--out', '/nowhere', '--platform', 'gramine']
    const server = enclaveIn(sandbox, 'server', { job, deployment: { process: { role: 'server' } } })
    const serving = server(args, hostile)
    const [, address] = (await serving.says(/listening.*?(127\.0\.0\.1:\d+)/)) as unknown as [string, string]
    const workers = [0, 1].map((index) => {
      const deployment = { process: { role: 'worker', index }, server: { addresses: [address] } }
      return enclaveIn(sandbox, `worker${index}`, { job, deployment })(args, hostile)
    })
    for (const process of [serving, ...workers]) expect(await process.exited).toMatchObject({ status: 0, err: '' })
    expect(sandbox.json('server/run/result.json')).toMatchObject({ steps: 6, interrupted: false })
    expect(sandbox.files('server/run')).toContain('model')
  })

  test('runs with the flags of Node that the manifest gives: no WebAssembly, no code from strings', async () => {
    const sandbox = new Sandbox()
    const job = await simulatedPlatform(sandbox)
    const server = enclaveIn(sandbox, 'server', { job, deployment: { process: { role: 'server' } } })
    const serving = server([], { nodeFlags: ['--no-expose-wasm', '--disallow-code-generation-from-strings'] })
    await serving.says(/listening/)
    serving.kill('SIGTERM')
    expect((await serving.exited).status).toBe(130)
  })

  test('a production image refuses to be simulated', async () => {
    const sandbox = new Sandbox()
    const job = await simulatedPlatform(sandbox)
    const deployment = { process: { role: 'server' }, engine: { choice: 'javascript' } }
    const { status, err } = await enclaveIn(sandbox, 'server', { image: 'production', job, deployment })().exited
    expect(status).toBe(1)
    expect(err).toContain('platform-simulated-refused')
  })

  test('another job is another digest: the worker of a host that changed it is refused', async () => {
    const sandbox = new Sandbox()
    await sandbox.synthesize('data', 20)
    const job = await simulatedPlatform(sandbox)
    const serving = enclaveIn(sandbox, 'server', { job, deployment: { process: { role: 'server' } } })()
    const [, address] = (await serving.says(/listening.*?(127\.0\.0\.1:\d+)/)) as unknown as [string, string]
    const deployment = { process: { role: 'worker', index: 0 }, server: { addresses: [address] } }
    const worker = enclaveIn(sandbox, 'worker', { job: { ...job, seed: 4 }, deployment })()
    const { status, err } = await worker.exited
    expect(status).toBe(1)
    expect(err).toMatch(/job/)
  })
})
