/** The built program as a person or a machine starts it: real processes, each test in a directory and a cache of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach } from 'vitest'
import type { CloisterEvent } from '../../src/observability/events.ts'
import { engineDirectory, requires } from '../requirements.ts'

export const root = resolve(import.meta.dirname, '../..')
export const main = join(root, 'dist/main.js')

/** What computes in tests that are not about the engine. */
export const anyEngine = requires('tensorflow-library').available ? 'tensorflow' : 'javascript'

export interface Exit {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

const running = new Set<ChildProcess>()
const directories: string[] = []

afterEach(() => {
  for (const child of running) child.kill('SIGKILL')
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
})

/** A place to run in, removed after the test. */
export class Sandbox {
  readonly directory = mkdtempSync(join(tmpdir(), 'cloister-e2e-'))

  constructor() {
    directories.push(this.directory)
  }

  path(...parts: string[]): string {
    return join(this.directory, ...parts)
  }

  write(name: string, value: unknown): string {
    const file = this.path(name)
    writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value))
    return file
  }

  read(name: string): string {
    return readFileSync(this.path(name), 'utf8')
  }

  json(name: string): unknown {
    return JSON.parse(this.read(name))
  }

  /** Files below `name`, sorted. */
  files(name: string): string[] {
    return readdirSync(this.path(name), { recursive: true, encoding: 'utf8' }).sort()
  }

  /** What the processes of a run in `name` reported. */
  events(name: string): Reported[] {
    // The last line may be on its way.
    const lines = this.read(join(name, 'events.jsonl')).split('\n').slice(0, -1)
    return lines.map((line) => JSON.parse(line) as Reported)
  }

  start(args: readonly string[], options: StartOptions = {}): Started {
    return new Started(this, args, options)
  }

  run(args: readonly string[], options: StartOptions = {}): Promise<Exit> {
    return this.start(args, options).exited
  }

  /** Runs what the test is not about, and must succeed. */
  async prepare(...args: readonly string[]): Promise<void> {
    const { status, err } = await this.run(args)
    if (status !== 0) throw new Error(err)
  }

  /** A small synthetic set in `name`: `records` images in each of the six files. */
  async synthesize(name = 'images', records = 40): Promise<string> {
    await this.prepare('data', 'synthesize', 'cifar10', name, '--records', String(records))
    return this.path(name)
  }
}

export type Reported = CloisterEvent & { readonly time: string; readonly source: string }

export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Of Node, before the program. */
  readonly nodeFlags?: readonly string[]
  /** Another build than this checkout's. */
  readonly entry?: string
  /** Below the sandbox. */
  readonly cwd?: string
}

export class Started {
  readonly child: ChildProcess
  readonly exited: Promise<Exit>
  out = ''
  err = ''
  #heard: (() => void)[] = []
  #ended = false

  constructor(
    sandbox: Sandbox,
    args: readonly string[],
    { env = {}, nodeFlags = [], entry = main, cwd = '' }: StartOptions,
  ) {
    const { PATH, HOME } = process.env
    mkdirSync(sandbox.path('cache'), { recursive: true })
    this.child = spawn(process.execPath, [...nodeFlags, entry, ...args], {
      cwd: sandbox.path(cwd),
      env: { PATH, HOME, CLOISTER_CACHE: sandbox.path('cache'), CLOISTER_ENGINE: engineDirectory, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.add(this.child)
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.out += text
      this.#tell()
    })
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.err += text
      this.#tell()
    })
    this.exited = new Promise((done, failed) => {
      this.child.once('error', failed)
      this.child.once('close', (status, signal) => {
        running.delete(this.child)
        this.#ended = true
        this.#tell()
        done({ status, signal, out: this.out, err: this.err })
      })
    })
  }

  get pid(): number {
    return this.child.pid as number
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  /** Resolves with the first match in standard output; fails when the process ends without one. */
  async says(pattern: RegExp): Promise<RegExpMatchArray> {
    for (;;) {
      const match = this.out.match(pattern)
      if (match !== null) return match
      if (this.#ended) throw new Error(`ended without ${pattern}:\n${this.out}\n${this.err}`)
      await new Promise<void>((heard) => this.#heard.push(heard))
    }
  }

  #tell(): void {
    for (const heard of this.#heard.splice(0)) heard()
  }
}

/** Resolves once `read` gives something; the test's own time limit is the bound. */
export async function eventually<Value>(read: () => Value | undefined): Promise<Value> {
  for (;;) {
    const value = read()
    if (value !== undefined) return value
    await new Promise((resume) => setTimeout(resume, 50))
  }
}

export interface SmallJob {
  readonly workers?: number
  readonly updates?: number
  readonly training?: object
  readonly data?: object
  readonly seed?: number
}

/** ResNet-8 on a few images: the whole product in seconds. */
export function smallJob({ workers = 2, updates = 6, training = {}, data = {}, seed = 3 }: SmallJob = {}): object {
  return {
    workload: 'image-classification',
    seed,
    workers,
    model: { name: 'resnet', layers: 8 },
    data: { name: 'cifar-10', augment: false, ...data },
    training: { batchSize: 4, updates, learningRate: { schedule: 'constant', rate: 0.02 }, ...training },
  }
}

/** Processes whose command line names `text`: what a run has left behind. */
export function processesNaming(text: string): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    try {
      return pid !== process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text)
    } catch {
      return false
    }
  })
}
