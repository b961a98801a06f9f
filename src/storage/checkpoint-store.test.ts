import {
  cp,
  type FileHandle,
  mkdir,
  mkdtemp,
  open as openFile,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { CheckpointStore, type CheckpointStoreOptions, type RefusedCheckpoint } from './checkpoint-store.ts'
import type { RowsBlock } from './rows-block.ts'

const key = new Uint8Array(32).fill(7)
const context = { jobDigest: new Uint8Array(32).fill(3), server: 0, servers: 2 }

let directory = ''
let refused: RefusedCheckpoint[] = []
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cloister-checkpoints-'))
  refused = []
})
afterEach(() => rm(directory, { recursive: true }))

const open = (options: Partial<CheckpointStoreOptions> = {}): Promise<CheckpointStore> =>
  CheckpointStore.open({ directory, key, context, keep: 3, onRefused: (one) => refused.push(one), ...options })

const block = (table: string, rows: Record<number, number>): RowsBlock => ({
  table,
  width: 2,
  slots: ['sum'],
  ids: Uint32Array.from(Object.keys(rows), Number),
  values: Float32Array.from(Object.values(rows).flatMap((value) => [value, -value, value / 2, 0])),
})

const content = (step: number, rows: RowsBlock[] = [], since?: number) => ({
  step,
  since,
  header: { positions: [step, 2 * step] },
  tensors: [{ name: 'w', shape: [2, 1], data: Float32Array.of(step, -0) }],
  blobs: new Map([['vocabulary', Buffer.from(`of ${step}`)]]),
  rows,
})

/** Table and id → its first value, as a reader of the stream ends up with. */
async function rowsOf(store: CheckpointStore, step: number): Promise<Record<string, number>> {
  const rows: Record<string, number> = {}
  for await (const { table, ids, values } of (await store.read(step)).rows) {
    for (const [row, id] of ids.entries()) {
      const value = values[row * 4]!
      expect([...values.subarray(row * 4, row * 4 + 4)]).toEqual([value, -value, value / 2, 0])
      rows[`${table}/${id}`] = value
    }
  }
  return rows
}

const fileOf = async (suffix: string): Promise<string> =>
  join(
    directory,
    (await readdir(directory))
      .filter((name) => name.endsWith(suffix))
      .sort()
      .at(-1)!,
  )

async function flip(path: string, at: number): Promise<void> {
  const bytes = await readFile(path)
  bytes[at < 0 ? bytes.length + at : at]! ^= 1
  await writeFile(path, bytes)
}

test('what was written is read by a store that is opened later, bit for bit', async () => {
  const first = await open()
  const written = await first.write(content(40, [block('users', { 7: 1.5, 0: 2, 4294967295: 3 })]))
  expect(written.path).toBe(join(directory, '40.checkpoint'))
  const names = await readdir(directory)
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(directory, name))).size))
  expect(written.bytes).toBe(sizes[0]! + sizes[1]!)
  const store = await open()
  expect(store.steps).toEqual([40])
  const read = await store.read(40)
  expect(read).toMatchObject({ step: 40, header: { positions: [40, 80] } })
  expect(read.tensors).toEqual([{ name: 'w', shape: [2, 1], data: Float32Array.of(40, -0) }])
  expect(Object.is(read.tensors[0]!.data[1], -0)).toBe(true)
  expect(Buffer.from(read.blobs.get('vocabulary')!).toString()).toBe('of 40')
  expect(await rowsOf(store, 40)).toEqual({ 'users/7': 1.5, 'users/0': 2, 'users/4294967295': 3 })
  expect(refused).toEqual([])
})

test('rows that did not change are not written again, and the newest of each is read', async () => {
  const store = await open({ rewriteBelowBytes: 0 })
  const base = Object.fromEntries(Array.from({ length: 500 }, (_, id) => [id, id]))
  await store.write(content(1, [block('users', base)]))
  const { bytes } = await store.write(content(2, [block('users', { 7: 70 })], 1))
  expect(bytes).toBeLessThan(1500)
  await store.write(content(3, [block('users', { 8: 80, 900: 1 }), block('items', { 7: 5 })], 2))
  const reopened = await open()
  expect(await rowsOf(reopened, 1)).toEqual(
    Object.fromEntries(Object.entries(base).map(([id, v]) => [`users/${id}`, v])),
  )
  const second: Record<string, number> = { ...(await rowsOf(reopened, 1)), 'users/7': 70 }
  expect(await rowsOf(reopened, 2)).toEqual(second)
  expect(await rowsOf(reopened, 3)).toEqual({ ...second, 'users/8': 80, 'users/900': 1, 'items/7': 5 })
})

test('tables and their changes, against a map', async () => {
  const values = fc.dictionary(fc.nat({ max: 40 }).map(String), fc.integer({ min: -1000, max: 1000 }), { maxKeys: 12 })
  const steps = fc.array(fc.record({ users: values, items: values, reopen: fc.boolean() }), {
    minLength: 1,
    maxLength: 12,
  })
  await fc.assert(
    fc.asyncProperty(steps, fc.constantFrom(0, 700, 1 << 20), async (changes, rewriteBelowBytes) => {
      await rm(directory, { recursive: true })
      let store = await open({ rewriteBelowBytes, keep: 2 })
      const model: Record<string, number> = {}
      const models: Record<string, number>[] = []
      for (const [step, { users, items, reopen }] of changes.entries()) {
        const rows = [block('users', users), block('items', items)]
        await store.write(content(step, rows, step === 0 ? undefined : step - 1))
        for (const [table, changed] of Object.entries({ users, items })) {
          for (const [id, value] of Object.entries(changed)) model[`${table}/${id}`] = value
        }
        models.push({ ...model })
        if (reopen) store = await open({ rewriteBelowBytes, keep: 2 })
        for (const kept of store.steps) expect(await rowsOf(store, kept)).toEqual(models[kept])
        expect(store.steps).toEqual([step - 1, step].filter((kept) => kept >= 0))
      }
      // A chain is short, and nothing is left over.
      const files = (await readdir(directory)).length
      expect(files).toBeLessThanOrEqual(2 + 2 * 8)
      expect(refused).toEqual([])
    }),
    { numRuns: 25 },
  )
})

test('the last K stay, and no file besides theirs', async () => {
  const store = await open({ keep: 2, rewriteBelowBytes: 0 })
  for (let step = 1; step <= 9; step += 1) {
    await store.write(content(step, [block('users', { [step]: step })], step === 1 ? undefined : step - 1))
  }
  expect(store.steps).toEqual([8, 9])
  const before = (await readdir(directory)).sort()
  await open()
  expect((await readdir(directory)).sort()).toEqual(before)
  expect(before.filter((name) => name.endsWith('.checkpoint'))).toEqual(['8.checkpoint', '9.checkpoint'])
  expect(Object.keys(await rowsOf(store, 9))).toHaveLength(9)
})

test('the step that every server has stays, however many came since, until another is said to be', async () => {
  const store = await open({ keep: 2 })
  await store.write(content(1))
  await store.declareDurable(1)
  for (const step of [2, 3, 4]) await store.write(content(step))
  expect(store.steps).toEqual([1, 3, 4])
  expect((await open({ keep: 2 })).steps).toEqual([1, 3, 4])
  await store.declareDurable(4)
  await store.write(content(5))
  expect(store.steps).toEqual([4, 5])
})

test('what a crash leaves is cleared away', async () => {
  const store = await open()
  await store.write(content(1, [block('users', { 1: 1 })]))
  const before = (await readdir(directory)).sort()
  await writeFile(join(directory, '2.checkpoint.partial'), 'half')
  await cp(await fileOf('.rows'), join(directory, '2-0123456789abcdef.rows'))
  expect((await open()).steps).toEqual([1])
  expect((await readdir(directory)).sort()).toEqual(before)
})

describe('a damaged checkpoint is reported and an older one is used', () => {
  beforeEach(async () => {
    const store = await open({ rewriteBelowBytes: 1 << 20 })
    await store.write(content(1, [block('users', { 1: 1 })]))
    await store.write(content(2, [block('users', { 2: 2 })], 1))
  })

  test.each<[string, string, (path: string) => Promise<void>, string]>([
    ['changed', '2.checkpoint', (path) => flip(path, -1), 'sealed-damaged'],
    [
      'cut',
      '2.checkpoint',
      async (path) => writeFile(path, (await readFile(path)).subarray(0, 100)),
      'sealed-truncated',
    ],
    ['empty', '2.checkpoint', (path) => writeFile(path, ''), 'sealed-truncated'],
    ['older', '2.checkpoint', (path) => cp(join(directory, '1.checkpoint'), path), 'sealed-of-another-step'],
    ['a directory', '2.checkpoint', (path) => rm(path).then(() => mkdir(path)), 'sealed-unreadable'],
    ['its rows changed', '2-.rows', (path) => flip(path, 200), 'sealed-damaged'],
    ['its rows gone', '2-.rows', (path) => rm(path), 'sealed-unreadable'],
    [
      'a checkpoint as its rows',
      '2-.rows',
      (path) => cp(join(directory, '2.checkpoint'), path),
      'sealed-of-another-kind',
    ],
  ])('%s', async (_, name, damage, code) => {
    const names = await readdir(directory)
    const [prefix, suffix] = [name.split('.')[0]!, name.slice(name.indexOf('.'))]
    await damage(join(directory, names.find((one) => one.startsWith(prefix) && one.endsWith(suffix))!))
    const store = await open()
    expect(store.steps).toEqual([1])
    expect(refused.map(({ step, error }) => [step, error.code])).toEqual([[2, code]])
    expect(await rowsOf(store, 1)).toEqual({ 'users/1': 1 })
    await expect(store.read(2)).rejects.toMatchObject({ code: 'checkpoint-missing' })
  })

  test('and training goes on from there', async () => {
    await flip(join(directory, '2.checkpoint'), 300)
    const store = await open()
    await store.write(content(2, [block('users', { 3: 3 })], 1))
    expect(store.steps).toEqual([1, 2])
    expect(await rowsOf(await open(), 2)).toEqual({ 'users/1': 1, 'users/3': 3 })
  })

  test('damage is cleared away once enough newer ones are there', async () => {
    await flip(join(directory, '1.checkpoint'), 300)
    const store = await open({ keep: 2 })
    expect(refused).toHaveLength(1)
    await store.write(content(3, [], 2))
    expect(await readdir(directory)).not.toContain('1.checkpoint')
    refused = []
    await open()
    expect(refused).toEqual([])
  })

  test('damage that comes after the store was opened is refused when it is read', async () => {
    const store = await open()
    await flip(await fileOf('.rows'), -1)
    await expect(rowsOf(store, 2)).rejects.toMatchObject({ code: 'sealed-damaged' })
    await flip(join(directory, '2.checkpoint'), -1)
    await expect(store.read(2)).rejects.toMatchObject({ code: 'sealed-damaged' })
    await rm(join(directory, '2.checkpoint'))
    await expect(store.read(2)).rejects.toMatchObject({ code: 'sealed-unreadable' })
  })

  test('rows of another past of the same step are refused', async () => {
    const other = await mkdtemp(join(tmpdir(), 'cloister-past-'))
    await cp(directory, other, { recursive: true })
    const store = await open({ directory: other })
    await store.discardAfter(1)
    await store.write(content(2, [block('users', { 2: 222 })], 1))
    const theirs = (await readdir(other)).find((name) => name.startsWith('2-'))!
    await cp(join(other, theirs), await fileOf('.rows'))
    await rm(other, { recursive: true })
    expect((await open()).steps).toEqual([1])
    expect(refused.map(({ error }) => error.code)).toEqual(['sealed-swapped'])
  })
})

describe('where nothing is intact, nothing begins anew and nothing is deleted', () => {
  beforeEach(async () => {
    const store = await open()
    await store.write(content(1, [block('users', { 1: 1 })]))
    await store.write(content(2, [block('users', { 2: 2 })], 1))
    await writeFile(join(directory, '2-0123456789abcdef.rows'), '')
  })

  test.each<[string, Partial<CheckpointStoreOptions>]>([
    ['sealed-of-another-key', { key: new Uint8Array(32) }],
    ['sealed-of-another-job', { context: { ...context, jobDigest: new Uint8Array(32) } }],
    ['sealed-of-another-server', { context: { ...context, server: 1 } }],
    ['sealed-of-another-server', { context: { ...context, servers: 1 } }],
  ])('%s', async (code, options) => {
    const before = (await readdir(directory)).sort()
    await expect(open(options)).rejects.toMatchObject({ code })
    expect(refused.map(({ step, error }) => [step, error.code])).toEqual([
      [2, code],
      [1, code],
    ])
    expect((await readdir(directory)).sort()).toEqual(before)
    expect((await open()).steps).toEqual([1, 2])
  })
})

test('what came after the step from which servers go on is forgotten', async () => {
  const store = await open()
  for (const step of [1, 2, 3]) {
    await store.write(content(step, [block('users', { [step]: step })], step === 1 ? undefined : step - 1))
  }
  await store.discardAfter(1)
  expect(store.steps).toEqual([1])
  expect((await readdir(directory)).filter((name) => name.endsWith('.checkpoint'))).toEqual(['1.checkpoint'])
  await store.write(content(2, [block('users', { 20: 20 })], 1))
  expect(await rowsOf(await open(), 2)).toEqual({ 'users/1': 1, 'users/20': 20 })
})

test('a checkpoint that fails leaves all as it was, and the rows can come again', async () => {
  const store = await open()
  await store.write(content(1, [block('users', { 1: 1 })]))
  const before = (await readdir(directory)).sort()
  const rows = function* (): Generator<RowsBlock> {
    yield block('users', { 2: 2 })
    throw new Error('no more')
  }
  await expect(store.write({ ...content(2, [], 1), rows: rows() })).rejects.toThrow('no more')
  // The rows are written and the checkpoint is not: a directory stands in its place.
  await mkdir(join(directory, '2.checkpoint.partial'))
  const failing = store.write(content(2, [block('users', { 2: 2 })], 1))
  await expect(failing).rejects.toMatchObject({ code: 'storage-unwritable' })
  await rm(join(directory, '2.checkpoint.partial'), { recursive: true })
  expect((await readdir(directory)).sort()).toEqual(before)
  expect(store.steps).toEqual([1])
  await store.write(content(2, [block('users', { 2: 2 })], 1))
  expect(await rowsOf(await open(), 2)).toEqual({ 'users/1': 1, 'users/2': 2 })
})

test('whichever write to the disk finds no room, all stays as it was and the next checkpoint succeeds', async () => {
  const store = await open()
  await store.write(content(0, [block('users', { 0: 0.5 })]))
  const prototype = await fileHandlePrototype()
  let step = 0
  for (let failing = 1; ; failing += 1) {
    const before = (await readdir(directory)).sort()
    let calls = 0
    const full = (): void => {
      calls += 1
      if (calls === failing) throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC', syscall: 'write' })
    }
    const { writeFile: write, sync } = prototype
    vi.spyOn(prototype, 'writeFile').mockImplementation(async function (this: FileHandle, ...all) {
      full()
      await write.apply(this, all)
    })
    vi.spyOn(prototype, 'sync').mockImplementation(async function (this: FileHandle) {
      full()
      await sync.apply(this)
    })
    const outcome = await store
      .write(content(step + 1, [block('users', { [step]: step })], step))
      .catch((error) => error)
    vi.restoreAllMocks()
    // What fails once the checkpoint is on disk is the clearing away of older ones, which can wait.
    if (!(outcome instanceof Error)) break
    expect(outcome).toMatchObject({ code: 'storage-full' })
    expect((await readdir(directory)).sort()).toEqual(before)
    step += 1
    await store.write(content(step, [block('users', { [step]: step })], step - 1))
    expect(Object.keys(await rowsOf(await open(), step))).toHaveLength(step + 1)
  }
  // Header, content, file and directory of the rows, then of the checkpoint.
  expect(step).toBe(8)
})

async function fileHandlePrototype(): Promise<FileHandle> {
  const handle = await openFile(directory)
  await handle.close()
  return Object.getPrototypeOf(handle)
}

test('a directory that cannot be made', async () => {
  const file = join(directory, 'file')
  await writeFile(file, '')
  await expect(open({ directory: join(file, 'x') })).rejects.toMatchObject({ code: 'storage-unwritable' })
})

test('mistakes of the caller fail loudly', async () => {
  const store = await open()
  await store.write(content(5, [block('users', { 1: 1 })]))
  await expect(store.write(content(5))).rejects.toThrow('after one of step 5')
  await expect(store.write(content(6, [], 4))).rejects.toThrow('since checkpoint 4')
  await expect(store.write(content(6, [block('u', { 1: 1 }), block('u', { 1: 2 })], 5))).rejects.toThrow(
    'a row comes once',
  )
  const writing = store.write(content(7))
  await expect(store.write(content(8))).rejects.toThrow('one checkpoint at a time')
  await writing
  await expect(open({ keep: 1 })).rejects.toThrow('two checkpoints')
})

test('which step was durable everywhere is remembered apart from the checkpoints, and only grows', async () => {
  const store = await open()
  expect(store.durableStep).toBe(0)
  await store.declareDurable(4)
  await store.declareDurable(2)
  const again = await open()
  expect([again.durableStep, again.steps]).toEqual([4, []])
  await expect(open({ key: new Uint8Array(32).fill(8) })).rejects.toMatchObject({ code: 'sealed-of-another-key' })
})
