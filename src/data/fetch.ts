// SPDX-License-Identifier: Apache-2.0
/**
 * The official CIFAR-10 archive into a cache directory. Each file is checked against the SHA-256 pinned here, so that it does
 * not matter who serves it, and files are put in place when all are right.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import type { EventSink } from '../observability/events.ts'
import { cifar10Classes, classListFile } from './cifar10.ts'
import { download } from './download.ts'
import { FetchError, unwritable } from './fetch-error.ts'
import { readTar } from './tar.ts'

export const cifar10Address = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'

/** Of the files of the official archive. */
export const cifar10Digests: Readonly<Record<string, string>> = {
  'data_batch_1.bin': 'cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5',
  'data_batch_2.bin': 'a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed',
  'data_batch_3.bin': 'bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67',
  'data_batch_4.bin': '014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48',
  'data_batch_5.bin': '755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add',
  'test_batch.bin': '8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b',
}

export interface FetchOptions {
  /** Where the files shall lie. */
  readonly directory: string
  readonly address?: string
  /** File name → SHA-256; others than CIFAR-10's serve tests. */
  readonly digests?: Readonly<Record<string, string>>
  readonly idleTimeoutMs?: number
  /** Of the archive, and of what it unpacks to: CIFAR-10's is 170 MB, and 184 MB unpacked. */
  readonly maxBytes?: number
  readonly events?: EventSink
  readonly signal?: AbortSignal
}

/** Downloads unless the directory holds the files already. What else lies in the directory stays. */
export async function fetchCifar10(options: FetchOptions): Promise<void> {
  const { digests = cifar10Digests } = options
  const directory = resolve(options.directory)
  if (await hasDigests(directory, digests)) return
  const archive = `${directory}.tar.gz.part`
  try {
    await mkdir(dirname(directory), { recursive: true })
    const resumed = await stat(archive).then(
      ({ size }) => size > 0,
      () => false,
    )
    try {
      await downloadAndPlace(archive, { ...options, directory })
    } catch (error) {
      // The beginning may have been of another file: once more from nothing.
      if (!resumed || !(error instanceof FetchError) || !wrongContent.has(error.code)) throw error
      await downloadAndPlace(archive, { ...options, directory })
    }
  } catch (cause) {
    throw unwritable(cause) ?? cause
  }
}

const wrongContent = new Set<string>(['data-archive-malformed', 'data-digest-mismatch'])

async function downloadAndPlace(archive: string, options: FetchOptions): Promise<void> {
  const { directory, address = cifar10Address, digests = cifar10Digests, events, signal } = options
  const maxBytes = options.maxBytes ?? 256 * 2 ** 20
  await download({
    address,
    path: archive,
    maxBytes,
    idleTimeoutMs: options.idleTimeoutMs ?? 20_000,
    attempts: 4,
    onProgress: (done, total) => events?.({ kind: 'progress', activity: 'fetch-data', done, total }),
    ...(signal && { signal }),
  })
  const unfinished = `${directory}.unfinished-${process.pid}`
  try {
    await rm(unfinished, { recursive: true, force: true })
    await mkdir(unfinished)
    await unpack(unzipped(archive, maxBytes), unfinished, digests)
    await writeFile(join(unfinished, classListFile), `${cifar10Classes.join('\n')}\n`)
    await mkdir(directory, { recursive: true })
    for (const name of await readdir(unfinished)) await rename(join(unfinished, name), join(directory, name))
  } finally {
    // A wrong archive must not be gone on from, a right one is of no more use.
    await rm(archive, { force: true })
    await rm(unfinished, { recursive: true, force: true })
  }
}

/** Whether a directory holds exactly these files' contents. */
export async function hasDigests(directory: string, digests: Readonly<Record<string, string>>): Promise<boolean> {
  for (const [name, expected] of Object.entries(digests)) {
    const hash = createHash('sha256')
    try {
      for await (const chunk of createReadStream(join(directory, name), { highWaterMark: 2 ** 20 })) hash.update(chunk)
    } catch {
      return false
    }
    if (hash.digest('hex') !== expected) return false
  }
  return true
}

/** Takes the files wanted out of the archive, each only if its digest is right. */
async function unpack(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
  digests: Readonly<Record<string, string>>,
): Promise<void> {
  const missing = new Map(Object.entries(digests))
  for await (const { name, content } of readTar(archive)) {
    const file = name.slice(name.lastIndexOf('/') + 1)
    const expected = missing.get(file)
    if (expected === undefined) continue
    const hash = createHash('sha256')
    const handle = await open(join(directory, file), 'wx')
    try {
      for await (const chunk of content) {
        hash.update(chunk)
        await handle.writeFile(chunk)
      }
      await handle.sync()
    } finally {
      await handle.close()
    }
    const got = hash.digest('hex')
    if (got !== expected) {
      throw new FetchError('data-digest-mismatch', `${file}: expected SHA-256 ${expected}, got ${got}`, {
        hint: 'the archive is not the official one, or was damaged on its way: fetch it again from another address',
      })
    }
    missing.delete(file)
    if (missing.size === 0) return
  }
  throw malformed(`expected files ${[...missing.keys()].join(', ')}, got none of that name`)
}

/** The archive's bytes, no more than there can be. */
async function* unzipped(path: string, maxBytes: number): AsyncGenerator<Uint8Array> {
  const gunzip = createGunzip()
  pipeline(createReadStream(path), gunzip).catch(() => {}) // Seen below, as the error of its last stream.
  let bytes = 0
  try {
    for await (const chunk of gunzip as AsyncIterable<Uint8Array>) {
      bytes += chunk.length
      if (bytes > maxBytes) throw malformed(`expected at most ${maxBytes} bytes unpacked, got more`)
      yield chunk
    }
  } catch (cause) {
    throw cause instanceof FetchError ? cause : malformed(`expected gzip, got ${cause}`, cause)
  }
}

function malformed(message: string, cause?: unknown): FetchError {
  return new FetchError('data-archive-malformed', `archive: ${message}`, {
    hint: 'the download is damaged or is something else: fetch it again, or from another address',
    cause,
  })
}
