// SPDX-License-Identifier: Apache-2.0
/**
 * Puts TensorFlow's library into the user's cache: `cloister engine install`. Runs outside the enclave. pip fetches the wheel,
 * because it knows the user's index, mirrors, proxies and certificates; nothing is taken out of it before its SHA-256 is right.
 *
 * An interrupted install leaves nothing half-written: files are extracted beside their destination and renamed into place.
 * What has arrived of the wheel stays until its files are in place: the next attempt goes on from there.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { EngineError } from './engine-error.ts'
import { withInstallLock } from './install-lock.ts'
import { download, extract } from './python.ts'
import { type PinnedFile, type Release, releaseFor } from './release.ts'

export interface InstallOptions {
  /** See `engineDirectory`. Nothing but the engine may lie in it. */
  readonly directory: string
  /** Of another platform than this one, for whom it may be installed too. */
  readonly release?: Release
  readonly onProgress?: (progress: InstallProgress) => void
  readonly signal?: AbortSignal
  /** The interpreter whose pip is used. */
  readonly python?: string
}

export interface InstallProgress {
  readonly phase: 'download' | 'verify' | 'extract'
  readonly doneBytes: number
  readonly totalBytes: number
}

export interface EngineInfo {
  readonly directory: string
  /** `absent`: no library; `intact`: every byte as pinned; `altered`: there, but not what Cloister would install. */
  readonly state: 'absent' | 'intact' | 'altered'
  readonly files: readonly FileState[]
}

export interface FileState {
  readonly name: string
  readonly expected: PinnedFile
  readonly state: 'absent' | 'intact' | 'altered'
  /** Of what is there. */
  readonly sha256?: string
}

const releaseHere = (): Release => releaseFor(`${process.platform}-${process.arch}`)

/** Reads every byte: a second or two. */
export async function engineInfo(options: Omit<InstallOptions, 'onProgress' | 'python'>): Promise<EngineInfo> {
  return inspect(options.directory, options.release ?? releaseHere(), options)
}

/** Installs what is missing or altered, and waits for another process that is at it. */
export async function installEngine(options: InstallOptions): Promise<EngineInfo> {
  const { directory, release = releaseHere(), python = 'python3', signal } = options
  const before = await inspect(directory, release, options)
  if (before.state === 'intact') return before
  await checkReplaceable(directory, release)
  return withInstallLock(`${directory}.lock`, signal, async () => {
    const meanwhile = await inspect(directory, release, options)
    if (meanwhile.state === 'intact') return meanwhile
    const work = `${directory}.part`
    const wheel = await obtainWheel(work, release, python, options)
    const extracted = join(work, 'extracted')
    try {
      const info = await extractLibrary(wheel, extracted, release, python, options)
      await rm(directory, { recursive: true, force: true })
      await rename(extracted, directory)
      await rm(work, { recursive: true, force: true })
      return { ...info, directory }
    } finally {
      await rm(extracted, { recursive: true, force: true })
    }
  })
}

async function obtainWheel(work: string, release: Release, python: string, options: InstallOptions): Promise<string> {
  const { wheel: pinned } = release
  const wheel = join(work, pinned.name)
  await mkdir(work, { recursive: true })
  if ((await inspectFile(work, pinned, options)).state === 'intact') return wheel
  await rm(wheel, { force: true })
  const report = (doneBytes: number) =>
    options.onProgress?.({ phase: 'download', doneBytes: Math.min(doneBytes, pinned.bytes), totalBytes: pinned.bytes })
  await download({ python, release, into: work, report, signal: options.signal })
  const found = await inspectFile(work, pinned, options)
  if (found.state === 'intact') return wheel
  await rm(work, { recursive: true, force: true })
  throw new EngineError(
    'engine-checksum',
    `pip gave ${pinned.name} with SHA-256 ${found.sha256 ?? 'unknown (no such file)'}, expected ${pinned.sha256}`,
    {
      hint: 'The package index or mirror gives another file than the official one: check `pip config list`. It was deleted.',
    },
  )
}

async function extractLibrary(
  wheel: string,
  into: string,
  release: Release,
  python: string,
  options: InstallOptions,
): Promise<EngineInfo> {
  await rm(into, { recursive: true, force: true })
  await mkdir(into)
  const members = release.files.map(({ name }) => `tensorflow/${name}`)
  const totalBytes = release.files.reduce((sum, { bytes }) => sum + bytes, 0)
  const report = (doneBytes: number) => options.onProgress?.({ phase: 'extract', doneBytes, totalBytes })
  await extract({ python, wheel, members, into, report, signal: options.signal })
  const info = await inspect(into, release, options)
  if (info.state === 'intact') return info
  const wrong = info.files.filter((file) => file.state !== 'intact').map((file) => `${file.name} ${file.state}`)
  throw new EngineError('engine-checksum', `What came out of ${wheel} is not what was pinned: ${wrong.join(', ')}`, {
    hint: 'The disk or the Python installation is at fault: check them and run `cloister engine install` again.',
  })
}

async function inspect(directory: string, release: Release, options: Progressing): Promise<EngineInfo> {
  const files: FileState[] = []
  for (const file of release.files) files.push(await inspectFile(directory, file, options))
  const is = (state: FileState['state']) => files.every((file) => file.state === state)
  return { directory, state: is('intact') ? 'intact' : is('absent') ? 'absent' : 'altered', files }
}

interface Progressing {
  readonly onProgress?: (progress: InstallProgress) => void
  readonly signal?: AbortSignal
}

async function inspectFile(
  directory: string,
  expected: PinnedFile,
  { onProgress, signal }: Progressing,
): Promise<FileState> {
  const { name, bytes } = expected
  const path = join(directory, name)
  const there = await stat(path).catch(() => undefined)
  if (there === undefined) return { name, expected, state: 'absent' }
  if (there.size !== bytes) return { name, expected, state: 'altered' }
  const hash = createHash('sha256')
  let doneBytes = 0
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20, signal })) {
    hash.update(chunk)
    doneBytes += chunk.length
    onProgress?.({ phase: 'verify', doneBytes, totalBytes: bytes })
  }
  const sha256 = hash.digest('hex')
  return { name, expected, state: sha256 === expected.sha256 ? 'intact' : 'altered', sha256 }
}

/** A directory with anything else in it is not ours to replace. */
async function checkReplaceable(directory: string, release: Release): Promise<void> {
  const present = await readdir(directory).catch(() => [])
  const foreign = present.filter((name) => !release.files.some((file) => file.name === name))
  if (foreign.length > 0)
    throw new EngineError('engine-directory', `${directory} holds other files: ${foreign.slice(0, 3).join(', ')}`, {
      hint: 'Install into a directory of its own; what lies in it is replaced.',
    })
}
