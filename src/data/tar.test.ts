import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { readTar } from './tar.ts'

const directory = mkdtempSync(join(tmpdir(), 'tar-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** Too long for the name field: ustar splits it in two, other formats spread it over entries of other types. */
const deep = 'a'.repeat(60)
const deepFile = `deep/${deep}/${deep}.txt`
const contents: Record<string, Buffer> = {
  'top/empty.bin': Buffer.alloc(0),
  'top/one-block.bin': Buffer.alloc(512, 7),
  'top/more.bin': Buffer.from(Uint8Array.from({ length: 10_000 }, (_, index) => index)),
}
mkdirSync(join(directory, 'top'))
mkdirSync(join(directory, 'deep', deep), { recursive: true })
for (const [name, bytes] of Object.entries(contents)) writeFileSync(join(directory, name), bytes)
writeFileSync(join(directory, deepFile), 'deep')
symlinkSync('more.bin', join(directory, 'top/link.bin'))

function tarOf(format: string, ...members: string[]): Buffer {
  const path = join(directory, `${format}.tar`)
  execFileSync('tar', [`--format=${format}`, '-cf', path, '-C', directory, ...members])
  return readFileSync(path)
}

async function* inChunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function filesOf(archive: Uint8Array, chunk = 1000): Promise<Record<string, Buffer>> {
  const files: Record<string, Buffer> = {}
  for await (const { name, content } of readTar(inChunks(archive, chunk))) {
    const parts: Uint8Array[] = []
    for await (const part of content) parts.push(part)
    files[name] = Buffer.concat(parts)
  }
  return files
}

describe('reads what GNU tar writes', () => {
  test.each(['ustar', 'v7', 'gnu', 'pax'])('%s', async (format) => {
    expect(await filesOf(tarOf(format, 'top'))).toEqual(contents)
  })

  test('long names of ustar; those of other formats go unseen', async () => {
    expect(await filesOf(tarOf('ustar', 'deep'))).toEqual({ [deepFile]: Buffer.from('deep') })
    for (const format of ['gnu', 'pax']) {
      const files = await filesOf(tarOf(format, 'deep', 'top'))
      expect(files).toMatchObject(contents)
      expect(files).not.toHaveProperty([deepFile])
    }
  })

  test('whatever the size of chunks, and when contents are passed over', async () => {
    const archive = tarOf('ustar', 'top')
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3000 }), async (chunk) => {
        expect(await filesOf(archive, chunk)).toEqual(contents)
      }),
      { numRuns: 8 },
    )
    const names: string[] = []
    for await (const { name } of readTar(inChunks(archive, 700))) names.push(name)
    expect(names.sort()).toEqual(Object.keys(contents).sort())
  })
})

describe('refuses', () => {
  const malformed = expect.objectContaining({ code: 'data-archive-malformed' })
  const archive = tarOf('ustar', 'top')

  test('an archive cut off anywhere', async () => {
    const used = archive.findLastIndex((byte) => byte !== 0)
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: used }), async (length) => {
        await expect(filesOf(archive.subarray(0, length))).rejects.toEqual(malformed)
      }),
      { numRuns: 50 },
    )
  })

  test('a header with any byte changed', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(511), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const changed = Buffer.from(archive)
        changed[at]! ^= change
        // A change within the checksum's own field may leave its number as it was.
        if (at >= 148 && at < 156) return
        await expect(filesOf(changed)).rejects.toEqual(malformed)
      }),
      { numRuns: 100 },
    )
  })

  test('a size that is no octal number', async () => {
    for (const size of ['-0000000017', '99999999999', '           ', '\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff']) {
      const header = Buffer.alloc(512)
      header.write('file', 0)
      header.write(size, 124, 'latin1')
      header.fill(' ', 148, 156)
      const sum = header.reduce((total, byte) => total + byte, 0)
      header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
      await expect(filesOf(Buffer.concat([header, Buffer.alloc(1024)]))).rejects.toEqual(malformed)
    }
  })
})
