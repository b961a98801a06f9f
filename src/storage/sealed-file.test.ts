import { createCipheriv, createHash, createHmac, hkdfSync } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  headerBytes,
  maxChunkBytes,
  readSealed,
  type SealedContext,
  seal,
  tagBytes,
  writeSealed,
} from './sealed-file.ts'

const key = new Uint8Array(32).fill(7)
const context: SealedContext = {
  kind: 'checkpoint',
  jobDigest: new Uint8Array(32).fill(3),
  server: 1,
  servers: 2,
  step: 400,
}
const salt = Buffer.alloc(32, 9)
const chunkBytes = 8

let directory = ''
let path = ''
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cloister-sealed-'))
  path = join(directory, 'file')
})
afterEach(() => rm(directory, { recursive: true }))

async function contentOf(file: string, options: Parameters<typeof readSealed>[1] = { key, context }): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of readSealed(file, options)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function sealedBytes(
  content: Uint8Array,
  options: Partial<Parameters<typeof writeSealed>[2]> = {},
): Promise<Buffer> {
  await writeSealed(path, [content], { key, context, salt, chunkBytes, ...options })
  return await readFile(path)
}

async function refusalOf(bytes: Uint8Array, options?: Parameters<typeof readSealed>[1]): Promise<string> {
  await writeFile(path, bytes)
  try {
    await contentOf(path, options)
  } catch (error) {
    return (error as { code: string }).code
  }
  return 'none'
}

test.each([0, 1, 7, 8, 9, 16, 17, 100])('%i bytes come back', async (length) => {
  const content = Buffer.from(Array.from({ length }, (_, index) => index))
  const sealed = await sealedBytes(content)
  const chunks = Math.max(1, Math.ceil(length / chunkBytes))
  expect(sealed.length).toBe(headerBytes + chunks * tagBytes + length)
  expect(await contentOf(path)).toEqual(content)
})

test('content in any pieces seals to the same bytes', async () => {
  const whole = await sealedBytes(Buffer.from('the whole of the content'))
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat({ max: 24 }), { maxLength: 6 }), async (cuts) => {
      const at = [0, ...cuts.toSorted((a, b) => a - b), 24]
      const pieces = at.slice(1).map((end, index) => Buffer.from('the whole of the content').subarray(at[index], end))
      const parts: Uint8Array[] = []
      for await (const part of seal(pieces, { key, context, salt, chunkBytes })) parts.push(part)
      expect(Buffer.concat(parts)).toEqual(whole)
    }),
  )
})

/** The format written a second time from docs/storage-format.md, with HKDF from HMAC and GCM from its definition's parts. */
test('the bytes of a file are those that the documentation describes', async () => {
  const sealed = await sealedBytes(Buffer.from('0123456789'))
  const hkdf = (label: string, bytes: number): Buffer => {
    const extracted = createHmac('sha256', salt).update(key).digest()
    return createHmac('sha256', extracted).update(label).update(Buffer.of(1)).digest().subarray(0, bytes)
  }
  const header = Buffer.concat([
    Buffer.from('CLOISTER-SEALED\0'),
    Buffer.from('0100000008000000', 'hex'),
    Buffer.from('checkpoint\0\0\0\0\0\0'),
    Buffer.from('01000000020000009001000000000000', 'hex'),
    Buffer.alloc(32, 3),
    Buffer.alloc(8),
    salt,
    hkdf('cloister/sealed-file/v1/key-check', 16),
  ])
  expect(sealed.subarray(0, headerBytes).toString('hex')).toBe(header.toString('hex'))
  const subtle = await crypto.subtle.importKey('raw', hkdf('cloister/sealed-file/v1/chunks', 32), 'AES-GCM', false, [
    'decrypt',
  ])
  const open = async (nonce: string, chunk: Buffer): Promise<string> =>
    Buffer.from(
      await crypto.subtle.decrypt(
        { name: 'AES-GCM', iv: Buffer.from(nonce, 'hex'), additionalData: header },
        subtle,
        Uint8Array.from(chunk),
      ),
    ).toString()
  expect(await open('000000000000000000000000', sealed.subarray(144, 144 + 24))).toBe('01234567')
  expect(await open('000000000000000000000101', sealed.subarray(144 + 24))).toBe('89')
})

test('two files of the same content have nothing in common but the plain header', async () => {
  const [one, other] = [
    await sealedBytes(Buffer.alloc(64), { salt: Buffer.alloc(32, 1) }),
    await sealedBytes(Buffer.alloc(64)),
  ]
  const blocks = (bytes: Buffer): string[] => bytes.toString('hex', 96).match(/.{16}/g)!
  expect(blocks(one).filter((block) => blocks(other).includes(block))).toEqual([])
  expect(new Set(blocks(one.subarray(48))).size).toBe(blocks(one.subarray(48)).length)
})

describe('refused', () => {
  test('every changed byte of a file, in three ways', async () => {
    const sealed = await sealedBytes(Buffer.from('twenty bytes of text'))
    const codes = new Set<string>()
    for (let at = 0; at < sealed.length; at += 1) {
      for (const flip of [1, 0x80, 0xff]) {
        const changed = Buffer.from(sealed)
        changed[at]! ^= flip
        const code = await refusalOf(changed)
        expect([at, flip, code]).not.toContain('none')
        codes.add(code)
      }
    }
    // An altered size of chunks may also look like a cut file.
    expect([...codes].filter((code) => code !== 'sealed-truncated').sort()).toEqual([
      'sealed-damaged',
      'sealed-malformed',
      'sealed-of-another-job',
      'sealed-of-another-key',
      'sealed-of-another-kind',
      'sealed-of-another-server',
      'sealed-of-another-step',
    ])
  })

  test('every shorter and a longer file', async () => {
    const sealed = await sealedBytes(Buffer.from('twenty bytes of text'))
    for (let length = 0; length < sealed.length; length += 1) {
      const expected =
        length <= headerBytes || (length - headerBytes) % (chunkBytes + tagBytes) === 0
          ? 'sealed-truncated'
          : 'sealed-damaged'
      expect([length, await refusalOf(sealed.subarray(0, length))]).toEqual([length, expected])
    }
    expect(await refusalOf(Buffer.concat([sealed, Buffer.of(0)]))).toBe('sealed-damaged')
    expect(await refusalOf(Buffer.concat([sealed, sealed.subarray(headerBytes)]))).toBe('sealed-damaged')
  })

  test('chunks that changed places, came twice or came from another file of the same key', async () => {
    const sealed = await sealedBytes(Buffer.from('aaaaaaaabbbbbbbbcccc'))
    const other = await sealedBytes(Buffer.from('ddddddddeeeeeeeeffff'), { salt: Buffer.alloc(32, 1) })
    const [header, a, b, c] = [
      sealed.subarray(0, headerBytes),
      sealed.subarray(headerBytes, headerBytes + 24),
      sealed.subarray(headerBytes + 24, headerBytes + 48),
      sealed.subarray(headerBytes + 48),
    ]
    const foreign = other.subarray(headerBytes + 24, headerBytes + 48)
    expect(await refusalOf(Buffer.concat([header, a, b, c]))).toBe('none')
    for (const chunks of [[b, a, c], [a, a, c], [a, c], [a, foreign, c], [a, b, b, c], [c]]) {
      expect(await refusalOf(Buffer.concat([header, ...chunks]))).toBe('sealed-damaged')
    }
  })

  test('an empty last chunk behind another, though the key sealed it', async () => {
    const sealed = await sealedBytes(Buffer.alloc(9))
    const header = sealed.subarray(0, headerBytes)
    const chunkKey = new Uint8Array(hkdfSync('sha256', key, salt, 'cloister/sealed-file/v1/chunks', 32))
    const cipher = createCipheriv('aes-256-gcm', chunkKey, Buffer.from('000000000000000000000101', 'hex')).setAAD(
      header,
    )
    const empty = Buffer.concat([cipher.final(), cipher.getAuthTag()])
    expect(await refusalOf(Buffer.concat([sealed.subarray(0, headerBytes + 24), empty]))).toBe('sealed-damaged')
  })

  const sealWith = async (options: Partial<Parameters<typeof writeSealed>[2]>): Promise<string> =>
    refusalOf(await sealedBytes(Buffer.from('content'), options), { key, context, salt })
  test.each<[string, () => Promise<string>]>([
    ['none', () => sealWith({})],
    ['sealed-of-another-key', () => sealWith({ key: new Uint8Array(32).fill(8) })],
    ['sealed-of-another-kind', () => sealWith({ context: { ...context, kind: 'rows' } })],
    ['sealed-of-another-job', () => sealWith({ context: { ...context, jobDigest: new Uint8Array(32) } })],
    ['sealed-of-another-server', () => sealWith({ context: { ...context, server: 0 } })],
    ['sealed-of-another-server', () => sealWith({ context: { ...context, servers: 3 } })],
    ['sealed-of-another-step', () => sealWith({ context: { ...context, step: 399 } })],
    ['sealed-swapped', () => sealWith({ salt: Buffer.alloc(32, 1) })],
    ['sealed-malformed', () => refusalOf(Buffer.alloc(500))],
    ['sealed-truncated', () => refusalOf(Buffer.alloc(0))],
  ])('%s', async (code, refusal) => {
    expect(await refusal()).toBe(code)
  })

  test('a header that was relabelled to what is expected', async () => {
    const mine = await sealedBytes(Buffer.from('content'))
    const older = await sealedBytes(Buffer.from('content'), { context: { ...context, step: 300 } })
    mine.copy(older, 48, 48, 56)
    expect(await refusalOf(older)).toBe('sealed-damaged')
  })

  test('a file that is not there, a directory', async () => {
    await expect(contentOf(join(directory, 'absent'))).rejects.toMatchObject({ code: 'sealed-unreadable' })
    await expect(contentOf(directory)).rejects.toMatchObject({ code: 'sealed-unreadable' })
  })
})

test('a chunk is given out before the next is read', async () => {
  const sealed = await sealedBytes(Buffer.from('aaaaaaaabbbbbbbbcccc'))
  sealed[sealed.length - 1]! ^= 1
  await writeFile(path, sealed)
  const chunks = readSealed(path, { key, context })
  expect((await chunks.next()).value?.toString()).toBe('aaaaaaaa')
  expect((await chunks.next()).value?.toString()).toBe('bbbbbbbb')
  await expect(chunks.next()).rejects.toMatchObject({ code: 'sealed-damaged' })
})

test('content of several full chunks streams through', async () => {
  const part = Buffer.alloc(300_000)
  const pieces = function* (): Generator<Uint8Array> {
    for (let index = 0; index < 12; index += 1) yield part.fill(index)
  }
  const bytes = await writeSealed(path, pieces(), { key, context })
  expect(bytes).toBe(headerBytes + 3_600_000 + Math.ceil(3_600_000 / maxChunkBytes) * tagBytes)
  const expected = Buffer.concat(Array.from({ length: 12 }, (_, index) => Buffer.alloc(300_000, index)))
  const digest = (content: Buffer): string => createHash('sha256').update(content).digest('hex')
  expect(digest(await contentOf(path))).toBe(digest(expected))
})
