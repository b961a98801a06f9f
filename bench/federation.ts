// SPDX-License-Identifier: Apache-2.0
/**
 * What federation costs: ResNet-20, batch 128, 24×24, as `cloister train` (one process) and as `cloister simulate` with one and with
 * two workers, attested TLS between processes, on the same cores, in turn.
 *
 *     npm run bench -- federation [--rounds 3] [--updates 150] [--data DIR]
 *
 * CPU a step is the difference between a long and a short run, so that start-up, tracing and final scores fall out; it counts
 * every process of the run. Images a second are from the first assignment to the last update.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { median, table } from './statistics.ts'

const root = resolve(import.meta.dirname, '..')
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    updates: { type: 'string', default: '150' },
    data: { type: 'string', default: join(root, '../shared/data/cifar10') },
  },
})
const shortUpdates = 30
const longUpdates = shortUpdates + Number(values.updates)

interface Run {
  readonly cpuSeconds: number
  readonly imagesPerSecond: number
  readonly bytesPerStep: number
  readonly serverMebibytes: number
}

const cases = [
  { name: 'one process (train)', command: ['train'], settings: [] },
  { name: '1 server + 1 worker', command: ['simulate'], settings: ['workers=1'] },
  { name: '1 server + 2 workers', command: ['simulate'], settings: ['workers=2'] },
]

const measured = cases.map(() => [] as { short: Run; long: Run }[])
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [index, { command, settings }] of cases.entries()) {
    const short = await run(command, settings, shortUpdates)
    const long = await run(command, settings, longUpdates)
    measured[index]!.push({ short, long })
  }
}

const cpuPerStep = (index: number) =>
  measured[index]!.map(({ short, long }) => (long.cpuSeconds - short.cpuSeconds) / (longUpdates - shortUpdates))
const baseline = cpuPerStep(0)
table(
  ['', 'images/s', 'CPU s/step', 'CPU ratio', 'images ratio', 'KB/step', 'server MiB'],
  cases.map(({ name }, index) => {
    const runs = measured[index]!
    const cpu = cpuPerStep(index)
    return [
      name,
      median(runs.map(({ long }) => long.imagesPerSecond)).toFixed(0),
      median(cpu).toFixed(3),
      median(cpu.map((seconds, round) => seconds / baseline[round]!)).toFixed(3),
      median(runs.map(({ long }, round) => long.imagesPerSecond / measured[0]![round]!.long.imagesPerSecond)).toFixed(
        3,
      ),
      index === 0 ? '-' : (median(runs.map(({ long }) => long.bytesPerStep)) / 1000).toFixed(0),
      index === 0 ? '-' : median(runs.map(({ long }) => long.serverMebibytes)).toFixed(0),
    ]
  }),
)

async function run(command: readonly string[], settings: readonly string[], updates: number): Promise<Run> {
  const out = mkdtempSync(join(tmpdir(), 'cloister-bench-'))
  const set = ['training.batchSize=128', 'training.evaluateEvery=0', `training.updates=${updates}`, ...settings]
  const program = [
    process.execPath,
    join(root, 'dist/main.js'),
    ...command,
    '--job',
    join(root, 'examples/quick-start.json'),
  ]
  const words = [...program, ...set.flatMap((entry) => ['--set', entry]), '--data', values.data, '--out', out]
  // `times` tells the CPU seconds of every process below the shell.
  const shell = spawn('bash', ['-c', '"$@" > "$0/stdout"; times', out, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let printed = ''
  shell.stdout.on('data', (chunk: Buffer) => {
    printed += chunk
  })
  let serverKibibytes = 0
  const sampling = setInterval(() => {
    serverKibibytes = Math.max(serverKibibytes, peakOfServer(out))
  }, 300)
  const status = await new Promise((done) => shell.once('close', done))
  clearInterval(sampling)
  if (status !== 0) throw new Error(`${words.join(' ')} ended with ${status}`)
  const result = JSON.parse(readFileSync(join(out, 'result.json'), 'utf8'))
  const events = readFileSync(join(out, 'events.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const traffic = events.filter(({ kind, source }) => kind === 'traffic' && source === 'server')
  rmSync(out, { recursive: true })
  return {
    cpuSeconds: childSeconds(printed),
    imagesPerSecond: result.examplesPerSecond,
    bytesPerStep: traffic.reduce((sum, event) => sum + event.bytesSent + event.bytesReceived, 0) / result.steps,
    serverMebibytes: serverKibibytes / 1024,
  }
}

/** Second line of bash's `times`: user and system time of the children, as 0m1.234s. */
function childSeconds(text: string): number {
  const line = text.trim().split('\n').at(-1)!
  return [...line.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
    (sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds),
    0,
  )
}

/** Peak resident memory of the server whose files lie in `out`, in KiB; 0 while there is none. */
function peakOfServer(out: string): number {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
      if (!command.includes('server') || !command.includes(join(out, 'job.json'))) continue
      const [, peak] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
      return Number(peak ?? 0)
    } catch {
      // The process ended while we looked.
    }
  }
  return 0
}
