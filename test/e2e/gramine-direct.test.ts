/** Server and workers in Gramine's library OS without SGX, quotes from the simulated platform: where Gramine is installed. */
import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { buildEnclave } from '../../scripts/enclave.ts'
import { engineDirectory, requires } from '../requirements.ts'
import { Sandbox, smallJob } from './program.ts'

requires('gramine', 'tensorflow-library').describe('in gramine-direct', () => {
  let image: string
  const running: ChildProcess[] = []

  beforeAll(async () => {
    image = mkdtempSync(join(tmpdir(), 'cloister-direct-'))
    const { problems } = await buildEnclave({
      directory: image,
      image: 'development',
      sizes: 'default',
      engine: engineDirectory,
      node: process.execPath,
      libraryDirectory: '/usr/lib/x86_64-linux-gnu',
      // Keys of the processor exist on SGX alone.
      mountKey: 'none',
      openModel: false,
      edmm: false,
      renderer: 'gramine-manifest',
    })
    expect(problems).toEqual([])
  })
  afterAll(() => {
    for (const child of running) child.kill('SIGKILL')
    rmSync(image, { recursive: true, force: true })
  })

  /** A directory for one process: the image's files, a configuration and a run of its own. */
  function start(sandbox: Sandbox, name: string, job: object, deployment: object) {
    for (const directory of ['config', 'run']) mkdirSync(sandbox.path(name, directory), { recursive: true })
    for (const part of ['app', 'engine', 'hosts']) symlinkSync(join(image, part), sandbox.path(name, part))
    cpSync(join(image, 'cloister-development.manifest'), sandbox.path(name, 'cloister-development.manifest'))
    for (const shared of ['data', 'platform']) symlinkSync(sandbox.path(shared), sandbox.path(name, shared))
    sandbox.write(`${name}/config/job.json`, job)
    const simulated = { platform: { kind: 'simulated', directory: 'platform' } }
    sandbox.write(`${name}/config/deployment.json`, { ...simulated, ...deployment })
    const env = { PATH: process.env.PATH, NODE_OPTIONS: '--require /nowhere', CLOISTER_ENGINE: '/nowhere' }
    const child = spawn('gramine-direct', ['cloister-development', 'train', '--out', '/nowhere'], {
      cwd: sandbox.path(name),
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    running.push(child)
    let out = ''
    const exited = new Promise<number | null>((done) => child.once('close', done))
    const says = (pattern: RegExp) =>
      new Promise<string>((found, failed) => {
        const look = () => {
          const [, match] = pattern.exec(out) ?? []
          if (match !== undefined) found(match)
        }
        child.stdout.setEncoding('utf8').on('data', (text: string) => {
          out += text
          look()
        })
        exited.then((status) => failed(new Error(`ended with ${status} without ${pattern}:\n${out}`)))
      })
    return { exited, says }
  }

  test('server and two workers train to the end; no argument and no variable of the host comes in', async () => {
    const sandbox = new Sandbox()
    await sandbox.synthesize('data', 20)
    const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0'])
    await platform.says(/PCCS/)
    await sandbox.run(['policy', 'init', 'policy.json', '--root', 'platform/root.pem'])
    const job = { ...smallJob(), admission: sandbox.json('policy.json') }
    const server = start(sandbox, 'server', job, { process: { role: 'server' } })
    const address = await server.says(/listening.*?(127\.0\.0\.1:\d+)/)
    const workers = [0, 1].map((index) =>
      start(sandbox, `worker${index}`, job, { process: { role: 'worker', index }, server: { addresses: [address] } }),
    )
    for (const { exited } of [server, ...workers]) expect(await exited).toBe(0)
    expect(sandbox.json('server/run/result.json')).toMatchObject({ steps: 6, interrupted: false })
  })
})
