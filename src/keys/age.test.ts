import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { afterAll, describe, expect, test } from 'vitest'
import { requires } from '../../test/requirements.ts'
import { CodedError } from '../errors.ts'
import { decryptAge, encryptAge, encrypterTo, parseIdentities } from './age.ts'
import { openDataFile } from './data-file.ts'
import { type Release, releaseFile } from './release.ts'

const directory = mkdtempSync(join(tmpdir(), 'cloister-age-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const identity = await generateX25519Identity()
const recipient = await identityToRecipient(identity)
const otherIdentity = await generateX25519Identity()
const otherRecipient = await identityToRecipient(otherIdentity)

async function* inPieces(bytes: Uint8Array, size = bytes.length || 1): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size)
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** Reads to the end or to the refusal: its code, its text, and what was given out before. */
async function refusalOf(source: AsyncIterable<Uint8Array>) {
  const got: Uint8Array[] = []
  try {
    for await (const chunk of source) got.push(chunk)
  } catch (thrown) {
    if (!(thrown instanceof CodedError)) throw thrown
    return { code: thrown.code, text: `${thrown.message} ${thrown.hint}`, got: Buffer.concat(got) }
  }
  return undefined
}

const opened = (bytes: Uint8Array, identities: readonly string[] = [identity], size?: number) =>
  decryptAge(inPieces(bytes, size), identities, 'day_0.age')

describe('age', () => {
  test.each([0, 1, 65_535, 65_536, 65_537, 300_001])('gives back %i bytes, in pieces of any size', async (length) => {
    const plain = randomBytes(length)
    const encrypted = await collect(encryptAge(inPieces(plain, 1009), [otherRecipient, recipient]))
    for (const size of [997, 65_536, 10_000_000]) {
      expect((await collect(opened(encrypted, [identity], size))).equals(plain)).toBe(true)
    }
  })

  test('each flipped bit and each cut is refused, and nothing changed is given out', async () => {
    const plain = randomBytes(2 * 65_536 + 100)
    const encrypted = await collect(encryptAge(inPieces(plain), [recipient]))
    const header = encrypted.indexOf('\n---') + 1
    const payload = encrypted.indexOf('\n', header) + 1
    const places = [0, 10, 40, 60, 90, header + 6, payload, payload + 16, payload + 70_000, encrypted.length - 1]
    for (const place of places) {
      const changed = Buffer.from(encrypted)
      changed[place]! ^= 1
      const refusal = await refusalOf(opened(changed))
      expect(refusal?.code, `byte ${place}`).toMatch(/^age-(file-(malformed|damaged)|identity-wrong)$/)
      expect(refusal!.got.equals(plain.subarray(0, refusal!.got.length)), `byte ${place}`).toBe(true)
    }
    for (const length of [
      0,
      5,
      50,
      header + 10,
      payload,
      payload + 8,
      payload + 16,
      payload + 16 + 65_552,
      encrypted.length - 1,
    ]) {
      const refusal = await refusalOf(opened(encrypted.subarray(0, length)))
      expect(refusal?.code, `cut at ${length}`).toMatch(/^age-file-(malformed|damaged)$/)
    }
    expect((await refusalOf(opened(Buffer.concat([encrypted, Buffer.alloc(1)]))))?.code).toBe('age-file-damaged')
    expect((await refusalOf(opened(encrypted.subarray(0, payload + 16 + 65_552))))?.code).toBe('age-file-damaged')
  })

  test('wrong and missing identities have codes of their own', async () => {
    const encrypted = await collect(encryptAge(inPieces(Buffer.from('rows')), [recipient]))
    expect((await refusalOf(opened(encrypted, [otherIdentity])))?.code).toBe('age-identity-wrong')
    const missing = await refusalOf(opened(encrypted, []))
    expect(missing?.code).toBe('age-identity-missing')
    expect(missing?.text).toContain('cloister provision')
  })

  test('an endless header is refused before it fills the memory', async () => {
    let given = 0
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('age-encryption.org/v1\n-> ')
      for (;;) {
        given += 65_536
        yield Buffer.alloc(65_536, 'a')
      }
    }
    expect((await refusalOf(decryptAge(endless(), [identity], 'f.age')))?.code).toBe('age-file-malformed')
    expect(given).toBeLessThan(1_500_000)
  })

  test('junk is no age file', async () => {
    for (const junk of ['', 'hello', '-----BEGIN AGE ENCRYPTED FILE-----\n', 'age-encryption.org/v2\n--- x\n']) {
      expect((await refusalOf(opened(Buffer.from(junk))))?.code).toBe('age-file-malformed')
    }
  })

  test('identity files are read strictly, and no refusal quotes one', () => {
    expect(parseIdentities(`# created: today\n# public key: ${recipient}\n${identity}\n\n`)).toEqual([identity])
    for (const text of [
      '',
      '# nothing',
      identity.slice(0, -1),
      `${identity.slice(0, -2)}QQ`,
      recipient,
      'AGE-SECRET-KEY-2X',
    ]) {
      let message = ''
      try {
        parseIdentities(text)
      } catch (thrown) {
        expect(thrown).toMatchObject({ code: 'age-identity-malformed' })
        expect(thrown).not.toHaveProperty('cause')
        message = `${(thrown as CodedError).message} ${(thrown as CodedError).hint}`
      }
      expect(message).not.toBe('')
      if (text.startsWith('AGE-SECRET')) expect(message).not.toContain(text.slice(16, 30))
    }
  })

  test('recipients are read before anything is written', () => {
    expect(() => encrypterTo([])).toThrow(/at least one/)
    expect(() => encrypterTo([recipient, 'age1wrong'])).toThrow(/age1wrong/)
    expect(() => encrypterTo([identity])).toThrow(CodedError)
  })
})

describe('data files', () => {
  const rows = Buffer.from(Array.from({ length: 50_000 }, (_, row) => `1\t${row}\tdeadbeef\n`).join(''))

  test('plain, compressed, encrypted, both', async () => {
    const stored: Record<string, Uint8Array> = {
      'day.tsv': rows,
      'day.tsv.gz': gzipSync(rows),
      'day.tsv.age': await collect(encryptAge(inPieces(rows), [recipient])),
      'day.tsv.gz.age': await collect(encryptAge(inPieces(gzipSync(rows)), [recipient])),
    }
    for (const [name, bytes] of Object.entries(stored)) {
      writeFileSync(join(directory, name), bytes)
      expect((await collect(openDataFile(join(directory, name), [identity]))).equals(rows), name).toBe(true)
    }
  })

  test('what is wrong has its code', async () => {
    const code = async (name: string, bytes?: Uint8Array, identities = [identity]) => {
      const path = join(directory, name)
      if (bytes) writeFileSync(path, bytes)
      return (await refusalOf(openDataFile(path, identities)))?.code
    }
    const compressed = gzipSync(rows)
    const encrypted = await collect(encryptAge(inPieces(compressed), [recipient]))
    expect(await code('missing.tsv')).toBe('data-file-unreadable')
    expect(await code('missing.tsv.gz.age')).toBe('data-file-unreadable')
    expect(await code('cut.gz', compressed.subarray(0, 1000))).toBe('data-file-compression-damaged')
    expect(await code('cut.gz.age', encrypted.subarray(0, encrypted.length - 1))).toBe('age-file-damaged')
    expect(await code('wrong.gz.age', encrypted, [otherIdentity])).toBe('age-identity-wrong')
    const inside = await collect(encryptAge(inPieces(compressed.subarray(0, 1000)), [recipient]))
    expect(await code('inside.gz.age', inside)).toBe('data-file-compression-damaged')
  })

  test('a reader that stops early closes the file', async () => {
    const path = join(directory, 'early.age')
    writeFileSync(path, await collect(encryptAge(inPieces(randomBytes(3_000_000)), [recipient])))
    const open = () => readdirSync('/proc/self/fd').length
    const before = open()
    for (let index = 0; index < 20; index++) for await (const _ of openDataFile(path, [identity])) break
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(open()).toBeLessThan(before + 5)
  })
})

describe('release', () => {
  const model = randomBytes(200_000)
  const seal = async function* (source: AsyncIterable<Uint8Array>) {
    for await (const chunk of source) yield Buffer.from(chunk).map((byte) => byte ^ 0x55)
  }

  test('in the form that the job says', async () => {
    const path = join(directory, 'model.safetensors')
    const written = (release: Release) => releaseFile(path, inPieces(model, 7000), { release, seal })
    expect(await written({ form: 'age', recipients: [recipient, otherRecipient] })).toBe(`${path}.age`)
    expect(readdirSync(directory).filter((name) => name.startsWith('model'))).toEqual(['model.safetensors.age'])
    for (const key of [identity, otherIdentity]) {
      expect((await collect(openDataFile(`${path}.age`, [key]))).equals(model)).toBe(true)
    }
    expect(readFileSync(await written({ form: 'sealed' })).equals(model.map((byte) => byte ^ 0x55))).toBe(true)
    expect(readFileSync(await written({ form: 'plain' })).equals(model)).toBe(true)
  })

  test('a source that fails leaves nothing behind, and the older file whole', async () => {
    const path = join(directory, 'kept')
    const options = { release: { form: 'age', recipients: [recipient] }, seal } as const
    await releaseFile(path, inPieces(model), options)
    const before = readFileSync(`${path}.age`)
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield model
      throw new CodedError('test-failed', 'the source failed', { hint: 'none' })
    }
    await expect(releaseFile(path, failing(), options)).rejects.toMatchObject({ code: 'test-failed' })
    expect(readFileSync(`${path}.age`).equals(before)).toBe(true)
    expect(readdirSync(directory).filter((name) => name.endsWith('.partial'))).toEqual([])
    await expect(releaseFile(join(`${path}.age`, 'model'), inPieces(model), options)).rejects.toMatchObject({
      code: 'storage-unwritable',
    })
  })
})

requires('age').describe('the standard age tool', () => {
  const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

  test('opens what we write, and we open what it writes', async () => {
    const plain = randomBytes(1_000_003)
    const [keyFile, ours, theirs] = ['key.txt', 'ours.age', 'theirs.age'].map((name) => join(directory, name))
    writeFileSync(keyFile!, `${identity}\n`)
    writeFileSync(ours!, await collect(encryptAge(inPieces(plain, 4096), [recipient])))
    const decrypted = spawnSync('age', ['-d', '-i', keyFile!, ours!], { maxBuffer: 2 ** 24 })
    expect(decrypted.stderr.toString()).toBe('')
    expect(sha256(decrypted.stdout)).toBe(sha256(plain))
    const encrypted = spawnSync('age', ['-r', recipient, '-o', theirs!], { input: plain })
    expect(encrypted.status).toBe(0)
    expect(sha256(await collect(openDataFile(theirs!, [identity])))).toBe(sha256(plain))
  })
})
