import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { NewestSeen, type NewestSeenOptions } from './newest-seen.ts'

let directory = ''
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cloister-newest-'))
})
afterEach(() => rm(directory, { recursive: true }))

const open = (options: Partial<NewestSeenOptions> = {}): Promise<NewestSeen> =>
  NewestSeen.open({
    directory,
    key: new Uint8Array(32).fill(7),
    jobDigest: new Uint8Array(32).fill(3),
    worker: 1,
    workers: 4,
    ...options,
  })
const path = async (): Promise<string> => join(directory, (await readdir(directory))[0]!)

test('a worker that saw nothing accepts any server', async () => {
  const seen = await open()
  expect(seen.step).toBeUndefined()
  expect([seen.check(0), seen.check(9)]).toEqual([true, true])
})

test('an older server is told from a newer one, also by a worker that was restarted', async () => {
  await (await open()).remember(400)
  const seen = await open()
  expect(seen.step).toBe(400)
  expect([seen.check(399), seen.check(400), seen.check(401)]).toEqual([false, true, true])
})

test('what was remembered only grows, in whatever order it is told', async () => {
  const seen = await open()
  await Promise.all([300, 500, 400, 2 ** 40, 0].map((step) => seen.remember(step)))
  expect(seen.step).toBe(2 ** 40)
  expect((await open()).step).toBe(2 ** 40)
})

test('jobs and workers that share a directory have a memory each', async () => {
  await (await open()).remember(400)
  expect((await open({ jobDigest: new Uint8Array(32) })).step).toBeUndefined()
  expect((await open({ worker: 2 })).step).toBeUndefined()
})

test('every changed byte and every shorter file is refused', async () => {
  await (await open()).remember(400)
  const file = await path()
  const bytes = await readFile(file)
  for (let at = 0; at < bytes.length; at += 1) {
    const changed = Buffer.from(bytes)
    changed[at]! ^= 1
    await writeFile(file, changed)
    await expect(open()).rejects.toMatchObject({ code: expect.stringMatching(/^sealed-/) })
    await writeFile(file, bytes.subarray(0, at))
    await expect(open()).rejects.toMatchObject({ code: expect.stringMatching(/^sealed-/) })
  }
})

test('a memory that another key sealed is refused', async () => {
  await (await open()).remember(400)
  await expect(open({ key: new Uint8Array(32) })).rejects.toMatchObject({ code: 'sealed-of-another-key' })
})

test.each<[string, Partial<NewestSeenOptions>]>([
  ['sealed-of-another-server', { worker: 2 }],
  ['sealed-of-another-job', { jobDigest: new Uint8Array(32).fill(4) }],
])('%s: a memory that was put in the place of another', async (code, options) => {
  await (await open(options)).remember(1)
  const theirs = await path()
  await (await open()).remember(400)
  const mine = (await readdir(directory)).map((name) => join(directory, name)).find((name) => name !== theirs)!
  await rename(mine, theirs)
  await expect(open(options)).rejects.toMatchObject({ code })
})

test('what could not be written is not remembered, and can be remembered later', async () => {
  const seen = await open()
  await seen.remember(1)
  const obstacle = `${await path()}.partial`
  await mkdir(obstacle)
  await expect(seen.remember(2)).rejects.toMatchObject({ code: 'storage-unwritable' })
  expect([seen.step, (await open()).step]).toEqual([1, 1])
  await rm(obstacle, { recursive: true, force: true })
  await seen.remember(2)
  expect((await open()).step).toBe(2)
})
