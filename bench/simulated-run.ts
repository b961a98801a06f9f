// SPDX-License-Identifier: Apache-2.0
/** One run of the built program, measured from outside: CPU of all its processes, memory of the server, bytes, result. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')

export interface MeasuredRun {
  /** Of every process of the run, from start to end. */
  readonly cpuSeconds: number
  /** From the first assignment to the last update. */
  readonly examplesPerSecond: number
  readonly steps: number
  readonly examples: number
  /** Both ways, as TCP carries it. */
  readonly bytes: number
  readonly serverMebibytes: number
  readonly heldOut: Readonly<Record<string, number>>
  readonly events: readonly Readonly<Record<string, unknown>>[]
}

export interface RunOptions {
  readonly command: 'simulate' | 'train'
  readonly job: string
  readonly set: readonly string[]
  readonly data: string
}

export async function measuredRun({ command, job, set, data }: RunOptions): Promise<MeasuredRun> {
  const out = mkdtempSync(join(tmpdir(), 'cloister-bench-'))
  const program = [process.execPath, join(root, 'dist/main.js'), command, '--job', join(root, 'examples', job)]
  const words = [...program, ...set.flatMap((entry) => ['--set', entry]), '--data', data, '--out', out]
  // `times` tells the CPU seconds of every process below the shell.
  const shell = spawn('bash', ['-c', '"$@" > "$0/stdout"; status=$?; times; exit $status', out, ...words], {
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
  if (status !== 0) throw new Error(`${words.join(' ')} ended with ${status}: see ${out}`)
  const result = JSON.parse(readFileSync(join(out, 'result.json'), 'utf8'))
  const events = readFileSync(join(out, 'events.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const traffic = events.filter(({ kind, source }) => kind === 'traffic' && String(source).startsWith('server'))
  rmSync(out, { recursive: true })
  return {
    cpuSeconds: childSeconds(printed),
    examplesPerSecond: result.examplesPerSecond,
    steps: result.steps,
    examples: result.examples,
    bytes: traffic.reduce((sum, event) => sum + event.bytesSent + event.bytesReceived, 0),
    serverMebibytes: serverKibibytes / 1024,
    heldOut: result.heldOut,
    events,
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
