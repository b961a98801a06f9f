import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { CloisterEvent } from '../observability/events.ts'
import { fetchCifar10, hasDigests } from './fetch.ts'

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const root = mkdtempSync(join(tmpdir(), 'fetch-'))
afterAll(() => rmSync(root, { recursive: true }))

const contents = { 'data_batch_1.bin': randomBytes(70_000), 'test_batch.bin': randomBytes(30_000) }
const digests = Object.fromEntries(Object.entries(contents).map(([name, bytes]) => [name, sha256(bytes)]))

function archiveOf(files: Record<string, Uint8Array>): Buffer {
  const directory = mkdtempSync(join(root, 'archive-'))
  mkdirSync(join(directory, 'cifar-10-batches-bin'))
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(directory, 'cifar-10-batches-bin', name), bytes)
  const tar = join(directory, 'archive.tar')
  execFileSync('tar', ['-cf', tar, '-C', directory, 'cifar-10-batches-bin'])
  return gzipSync(readFileSync(tar), { level: 1 })
}

const archive = archiveOf({ ...contents, 'readme.html': Buffer.from('<p>') })

let server: Server
let address: string
let answer: (request: IncomingMessage, response: ServerResponse) => void
const ranges: (string | undefined)[] = []

beforeAll(async () => {
  server = createServer((request, response) => {
    ranges.push(request.headers.range)
    answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/archive.tar.gz`
})
afterAll(() => server.close())

let directory: string
let part: string
beforeEach(() => {
  directory = join(mkdtempSync(join(root, 'cache-')), 'nested', 'cifar10')
  part = `${directory}.tar.gz.part`
  ranges.length = 0
})
afterEach(() => server.closeAllConnections())

/** A server that knows ranges, as the official one does. */
function serving(bytes: Uint8Array): typeof answer {
  return (request, response) => {
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    if (from === 0) {
      response.writeHead(200, { 'content-length': bytes.length }).end(bytes)
    } else if (from >= bytes.length) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
    } else {
      const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`
      response.writeHead(206, { 'content-range': range, 'content-length': bytes.length - from })
      response.end(bytes.subarray(from))
    }
  }
}

/** Sends half of what is left, then breaks the connection, so many times; then all. */
function breaking(bytes: Uint8Array, times: number): typeof answer {
  const whole = serving(bytes)
  let broken = 0
  return (request, response) => {
    if (broken++ >= times) return whole(request, response)
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': bytes.length - from,
      ...(from > 0 && { 'content-range': range }),
    })
    response.write(bytes.subarray(from, from + Math.floor((bytes.length - from) / 2)), () => response.destroy())
  }
}

const fetchHere = (more: Partial<Parameters<typeof fetchCifar10>[0]> = {}) =>
  fetchCifar10({ directory, address, digests, ...more })

function expectPlaced(): void {
  for (const [name, bytes] of Object.entries(contents))
    expect(readFileSync(join(directory, name)).equals(bytes)).toBe(true)
  // Nothing is left beside it.
  expect(readdirSync(join(directory, '..'))).toEqual(['cifar10'])
}

describe('fetches', () => {
  test('the files, with progress, and not again', async () => {
    answer = serving(archive)
    const events: CloisterEvent[] = []
    await fetchHere({ events: (event) => events.push(event) })
    expectPlaced()
    expect(readdirSync(directory).sort()).toEqual(['batches.meta.txt', 'data_batch_1.bin', 'test_batch.bin'])
    expect(events.at(-1)).toEqual({
      kind: 'progress',
      activity: 'fetch-data',
      done: archive.length,
      total: archive.length,
    })
    await fetchHere()
    expect(ranges).toHaveLength(1)
  })

  test('on, where a connection breaks', async () => {
    answer = breaking(archive, 2)
    await fetchHere()
    expectPlaced()
    const half = Math.floor(archive.length / 2)
    const more = half + Math.floor((archive.length - half) / 2)
    expect(ranges).toEqual([undefined, `bytes=${half}-`, `bytes=${more}-`])
  })

  test('on, where an earlier process stopped, even at the very end', async () => {
    for (const length of [1000, archive.length]) {
      mkdirSync(join(directory, '..'), { recursive: true })
      writeFileSync(part, archive.subarray(0, length))
      ranges.length = 0
      answer = serving(archive)
      await fetchHere()
      expectPlaced()
      expect(ranges).toEqual([`bytes=${length}-`])
      rmSync(directory, { recursive: true })
    }
  })

  test('from the start, where the beginning is of another file', async () => {
    mkdirSync(join(directory, '..'), { recursive: true })
    for (const wrong of [randomBytes(1000), randomBytes(archive.length + 5)]) {
      writeFileSync(part, wrong)
      ranges.length = 0
      answer = serving(archive)
      await fetchHere()
      expectPlaced()
      expect(ranges).toEqual([`bytes=${wrong.length}-`, undefined])
      rmSync(directory, { recursive: true })
    }
  })

  test('from a server that knows no ranges, and through a redirection', async () => {
    mkdirSync(join(directory, '..'), { recursive: true })
    writeFileSync(part, archive.subarray(0, 1000))
    answer = (request, response) => {
      if (request.url === '/archive.tar.gz') response.writeHead(302, { location: '/elsewhere' }).end()
      else response.writeHead(200, { 'content-length': archive.length }).end(archive)
    }
    await fetchHere()
    expectPlaced()
  })

  test('into a directory that exists, leaving what else lies there', async () => {
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, 'mine.txt'), 'mine')
    writeFileSync(join(directory, 'test_batch.bin'), 'damaged')
    answer = serving(archive)
    await fetchHere()
    expectPlaced()
    expect(readFileSync(join(directory, 'mine.txt'), 'utf8')).toBe('mine')
  })
})

describe('refuses', () => {
  const rejects = async (code: string, more: Partial<Parameters<typeof fetchCifar10>[0]> = {}) => {
    await expect(fetchHere(more)).rejects.toMatchObject({ code, hint: expect.any(String) })
    expect(await hasDigests(directory, digests)).toBe(false)
  }

  test('files of other contents, and places none', async () => {
    const other = archiveOf({ ...contents, 'test_batch.bin': randomBytes(30_000) })
    answer = serving(other)
    await rejects('data-digest-mismatch')
    // Neither the right file of the two, nor the archive to go on from.
    expect(readdirSync(join(directory, '..'))).toEqual([])
  })

  test('an archive without a file, cut off, or that is none', async () => {
    answer = serving(archiveOf({ 'test_batch.bin': contents['test_batch.bin'] }))
    await rejects('data-archive-malformed')
    answer = serving(archive.subarray(0, archive.length - 9000))
    await rejects('data-archive-malformed')
    answer = serving(Buffer.from('<html>Please log in</html>'))
    await rejects('data-archive-malformed')
  })

  test('an archive that unpacks to more than there can be', async () => {
    const header = Buffer.alloc(512)
    header.write('zeros', 0)
    header.write('77777777777', 124)
    header.fill(' ', 148, 156)
    header.write(
      `${header
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    )
    answer = serving(gzipSync(Buffer.concat([header, Buffer.alloc(2 ** 21)])))
    await rejects('data-archive-malformed', { maxBytes: 2 ** 20 })
  })

  test('answers that are not the file', async () => {
    answer = (_, response) => response.writeHead(404).end()
    await rejects('data-download-failed')
    expect(ranges).toHaveLength(1)
    answer = (_, response) => response.writeHead(200, { 'content-length': 2 ** 30 }).end()
    await rejects('data-download-failed')
    answer = (_, response) => response.writeHead(200, { 'transfer-encoding': 'chunked' }).end('x')
    await rejects('data-download-failed')
    answer = (_, response) => response.writeHead(302, { location: '/again' }).end()
    await rejects('data-download-failed')
  })

  test('a server that is not there, falls silent, or breaks off each time', async () => {
    await rejects('data-offline', { address: 'http://127.0.0.1:1/archive.tar.gz' })
    await rejects('data-offline', { address: 'http://nowhere.invalid/archive.tar.gz' })
    answer = (_, response) => response.writeHead(200, { 'content-length': 1000 }).write('x')
    await rejects('data-download-failed', { idleTimeoutMs: 50 })
    answer = breaking(archive, 1000)
    await rejects('data-download-failed')
    // Kept, to go on from.
    expect(readFileSync(part).length).toBeGreaterThan(archive.length / 2)
  })

  test('a cache that cannot be written', async () => {
    answer = serving(archive)
    const file = join(root, 'a-file')
    writeFileSync(file, '')
    await rejects('data-unwritable', { directory: join(file, 'cifar10') })
  })

  test('to go on after an abort', async () => {
    const controller = new AbortController()
    answer = (_, response) => {
      response.writeHead(200, { 'content-length': 1000 }).write('x')
      controller.abort(new Error('stop'))
    }
    await expect(fetchHere({ signal: controller.signal })).rejects.toThrow('stop')
    expect(ranges).toHaveLength(1)
  })
})
