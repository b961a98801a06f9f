// SPDX-License-Identifier: Apache-2.0
/**
 * What Gramine and SGX cost: one image, started by Node with the manifest's flags, in gramine-direct, in gramine-sgx. A row of docs/overheads.md:
 * server and two workers of ResNet-20, batch 64, on this machine.
 *
 *     npm run bench -- enclave --image build/enclave --with native|gramine-direct|gramine-sgx [--updates 60] [--data DIR]
 *                              [--policy FILE --qcnl FILE]    policy and collateral service for gramine-sgx
 *
 * Start is from the first process to the server's listening; in SGX it includes measuring every trusted file.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { parse } from 'smol-toml'
import { table } from './statistics.ts'

const root = resolve(import.meta.dirname, '..')
const { values } = parseArgs({
  options: {
    image: { type: 'string', default: join(root, 'build/enclave') },
    with: { type: 'string', default: 'native' },
    updates: { type: 'string', default: '60' },
    data: { type: 'string', default: join(root, '../shared/data/cifar10') },
    policy: { type: 'string' },
    qcnl: { type: 'string' },
  },
})
const image = resolve(values.image)
const manifestName = readdirSync(image).find((name) => name.endsWith('.manifest'))
if (manifestName === undefined) throw new Error(`${image}: expected what npm run build:enclave makes`)
const { loader } = parse(readFileSync(join(image, manifestName), 'utf8')) as { loader: { argv: string[] } }

interface Enclave {
  readonly listening: Promise<string>
  /** CPU seconds of it and what it started. */
  readonly ended: Promise<number>
}

const work = mkdtempSync(join(tmpdir(), 'cloister-bench-'))
const running = new Set<ChildProcess>()
try {
  const simulated = values.with !== 'gramine-sgx'
  const admission = simulated ? await simulatedPolicy() : JSON.parse(readFileSync(values.policy!, 'utf8'))
  const job = JSON.parse(readFileSync(join(root, 'examples/quick-start.json'), 'utf8'))
  Object.assign(job, { workers: 2, admission })
  Object.assign(job.training, { updates: Number(values.updates), evaluateEvery: 0 })
  const common = {
    platform: simulated ? { kind: 'simulated', directory: 'platform' } : { kind: 'gramine' },
    ...(!simulated && { collateral: { qcnl: 'config/sgx_default_qcnl.conf' } }),
    engine: { choice: 'tensorflow', threads: 1 },
  }
  const startedMs = performance.now()
  const server = start('server', job, { ...common, process: { role: 'server' } })
  const address = await server.listening
  const startSeconds = (performance.now() - startedMs) / 1000
  const workers = [0, 1].map((index) =>
    start(`worker${index}`, job, { ...common, process: { role: 'worker', index }, server: { addresses: [address] } }),
  )
  const cpuSeconds = (await Promise.all([server, ...workers].map(({ ended }) => ended))).reduce((sum, own) => sum + own)
  const allSeconds = (performance.now() - startedMs) / 1000
  const result = JSON.parse(readFileSync(join(work, 'server/run/result.json'), 'utf8'))
  table(
    ['', 'start s', 'images/s', 'CPU s in all', 's in all'],
    [
      [
        values.with,
        ...[startSeconds, result.examplesPerSecond, cpuSeconds, allSeconds].map((value) => value.toFixed(1)),
      ],
    ],
  )
} finally {
  for (const child of running) child.kill('SIGKILL')
  rmSync(work, { recursive: true })
}

async function simulatedPolicy(): Promise<object> {
  const cloister = (args: readonly string[]) =>
    spawn(process.execPath, [join(root, 'dist/main.js'), ...args], { cwd: work, stdio: ['ignore', 'pipe', 'inherit'] })
  const platform = cloister(['platform', 'serve', 'platform', '--port', '0'])
  running.add(platform)
  await new Promise((ready) => platform.stdout.once('data', ready))
  await new Promise((done) =>
    cloister(['policy', 'init', 'policy.json', '--root', 'platform/root.pem']).once('close', done),
  )
  return JSON.parse(readFileSync(join(work, 'policy.json'), 'utf8'))
}

/** A directory for one process: the image's files, a configuration and a run of its own. */
function start(name: string, job: object, deployment: object): Enclave {
  const directory = join(work, name)
  for (const part of ['config', 'run/model', 'run/checkpoints']) mkdirSync(join(directory, part), { recursive: true })
  const measured = readdirSync(image).filter((part) => !['config', 'data', 'platform', 'run'].includes(part))
  for (const part of measured) symlinkSync(join(image, part), join(directory, part))
  symlinkSync(resolve(values.data), join(directory, 'data'))
  symlinkSync(join(work, 'platform'), join(directory, 'platform'))
  writeFileSync(join(directory, 'config/job.json'), JSON.stringify(job))
  writeFileSync(join(directory, 'config/deployment.json'), JSON.stringify(deployment))
  if (values.qcnl !== undefined) copyFileSync(values.qcnl, join(directory, 'config/sgx_default_qcnl.conf'))
  const command =
    values.with === 'native'
      ? [process.execPath, ...loader.argv.slice(1, -1), 'app/enclave.mjs']
      : [values.with, manifestName!.replace(/\.manifest$/, '')]
  // `times` tells the CPU seconds of what the shell ran.
  const shell = spawn('bash', ['-c', '"$@"; status=$?; times; exit $status', 'bash', ...command], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  running.add(shell)
  let out = ''
  const listening = new Promise<string>((found) => {
    shell.stdout.on('data', (chunk: Buffer) => {
      out += chunk
      const [, address] = /listening.*?(127\.0\.0\.1:\d+)/.exec(out) ?? []
      if (address !== undefined) found(address)
    })
  })
  const ended = new Promise<number>((done, failed) => {
    shell.once('close', (status) => {
      running.delete(shell)
      if (status === 0) done(childSeconds(out))
      else failed(new Error(`${name} ended with ${status}:\n${out}`))
    })
  })
  return { listening, ended }
}

/** Second line of bash's `times`: user and system time of the children, as 0m1.234s. */
function childSeconds(text: string): number {
  const line = text.trim().split('\n').at(-1)!
  return [...line.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
    (sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds),
    0,
  )
}
