// SPDX-License-Identifier: Apache-2.0
/** What the installer lets Python do: fetch a wheel with pip, and take members out of it. Outside the enclave. */
import { spawn } from 'node:child_process'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from './engine-error.ts'
import type { Release } from './release.ts'

interface Common {
  readonly python: string
  readonly into: string
  /** Bytes that have arrived so far. */
  readonly report: (bytes: number) => void
  readonly signal: AbortSignal | undefined
}

const pollMs = 200

/**
 * The wheel, into `into`. pip says where its index or mirror has the file, and Python fetches that, going on from what an earlier
 * attempt left; where either is not possible (an old pip, an index behind a password) pip downloads in its own way, from the start.
 */
export async function download(options: Common & { release: Release }): Promise<void> {
  const { python, into, report, signal, release } = options
  const selection = ['--no-deps', '--only-binary=:all:', '--platform', release.platformTag, '--python-version', '311']
  const partial = join(into, `${release.wheel.name}.partial`)
  try {
    const found = await locateWithPip(options, selection)
    await run([python, '-c', resumableFetch, found, partial], () => fileSize(partial), report, signal)
    await rename(partial, join(into, release.wheel.name))
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof EngineError && error.code === 'engine-disk-full') throw error
    await downloadWithPip(options, selection)
    await rm(partial, { force: true })
  }
}

/** pip's report on what it would install: a file that names the wheel's address. */
async function locateWithPip({ python, into, signal, release }: Common & { release: Release }, selection: string[]) {
  const [found, unused] = [join(into, 'found.json'), join(into, 'unused')]
  const quiet = ['--dry-run', '--quiet', '--no-input', '--ignore-installed', '--disable-pip-version-check']
  const command = ['-m', 'pip', 'install', ...quiet, '--report', found, '--target', unused, ...selection]
  await run(
    [python, ...command, release.requirement],
    async () => 0,
    () => {},
    signal,
  )
  return found
}

/** Exits with a complaint unless the file is there whole. */
const resumableFetch = `
import json, os, sys, urllib.request
found, partial = sys.argv[1:]
with open(found) as report:
    [item] = json.load(report)["install"]
have = os.path.getsize(partial) if os.path.exists(partial) else 0
request = urllib.request.Request(item["download_info"]["url"], headers={"Range": f"bytes={have}-"} if have else {})
with urllib.request.urlopen(request, timeout=60) as answer:
    resumed = answer.status == 206 and answer.headers["Content-Range"].startswith(f"bytes {have}-")
    length = int(answer.headers["Content-Length"])
    with open(partial, "ab" if resumed else "wb") as file:
        while chunk := answer.read(1 << 20):
            file.write(chunk)
            file.flush()
            length -= len(chunk)
if length != 0:
    sys.exit("the connection ended early")
`

async function downloadWithPip(options: Common & { release: Release }, selection: string[]): Promise<void> {
  const { python, into, report, signal, release } = options
  // pip collects the download in its temporary directory: there it can be watched grow, whatever pip's version.
  const temporary = join(into, 'download')
  await rm(temporary, { recursive: true, force: true })
  await mkdir(temporary, { recursive: true })
  const command = ['-m', 'pip', 'download', '--quiet', '--no-input', '--disable-pip-version-check', ...selection]
  try {
    await run(
      ['env', `TMPDIR=${temporary}`, python, ...command, '--dest', into, release.requirement],
      () => sizeOf(temporary),
      report,
      signal,
    )
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

const extraction = `
import shutil, sys, zipfile
wheel, into, *members = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for member in members:
        with archive.open(member) as source, open(into + '/' + member.rsplit('/', 1)[-1], 'xb') as target:
            shutil.copyfileobj(source, target, 1 << 20)
`

export async function extract(options: Common & { wheel: string; members: readonly string[] }): Promise<void> {
  const { python, wheel, into, members, report, signal } = options
  await run([python, '-c', extraction, wheel, into, ...members], () => sizeOf(into), report, signal)
}

/** Rejects with the signal's reason when aborted, after the process has ended. */
async function run(
  [command, ...args]: readonly string[],
  measure: () => Promise<number>,
  report: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted()
  // A group of its own, so that an abort reaches the interpreter too where `python3` is a wrapper that starts it.
  const child = spawn(command!, args, { stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  const abort = (): void => {
    if (child.pid !== undefined) process.kill(-child.pid)
  }
  signal?.addEventListener('abort', abort, { once: true })
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-4000)
  })
  const watch = setInterval(() => void measure().then(report), pollMs)
  try {
    const ended = await new Promise<{ status: number | null; error?: Error }>((resolve) => {
      let error: Error | undefined
      child.on('error', (thrown) => {
        error = thrown
        // Without a process there is nothing whose end could be awaited.
        if (child.pid === undefined) resolve({ status: null, error })
      })
      child.on('close', (status) => resolve(error === undefined ? { status } : { status, error }))
    })
    signal?.throwIfAborted()
    if (ended.status !== 0) throw failure(ended.error, complaint, args)
  } finally {
    signal?.removeEventListener('abort', abort)
    clearInterval(watch)
  }
}

function failure(cause: Error | undefined, complaint: string, args: readonly string[]): EngineError {
  const last = complaint.trim().split('\n').filter(Boolean).slice(-2).join(' ')
  const message = cause?.message ?? last
  if (/No space left|Errno 28|ENOSPC/.test(complaint))
    return new EngineError('engine-disk-full', `The disk is full: ${message}`, {
      hint: 'The engine needs 1.2 GB while it is installed and 0.9 GB afterwards, in the cache directory.',
      cause,
    })
  if (cause !== undefined || /No module named pip|env: .*No such file/.test(complaint))
    return new EngineError(
      'engine-python',
      `TensorFlow is fetched with python3 and pip, and these did not run: ${message}`,
      {
        hint: 'Install them (e.g. `apt install python3-pip`), or unpack the wheel by hand and configure its directory.',
        cause,
      },
    )
  const hint = args.includes('download')
    ? 'Check the network, the proxy and `pip config list`; offline, run with `--engine javascript`.'
    : 'Check the disk and the Python installation, then run `cloister engine install` again.'
  return new EngineError('engine-download', `Python could not do its part: ${message}`, { hint, cause })
}

async function fileSize(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  )
}

/** Of all files in a directory; one that disappears meanwhile counts nothing. */
async function sizeOf(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])
  const sizes = entries.filter((entry) => entry.isFile()).map((entry) => fileSize(join(entry.parentPath, entry.name)))
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
}
