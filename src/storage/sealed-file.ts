// SPDX-License-Identifier: Apache-2.0
/**
 * Files that only the holder of a key reads, and nobody changes unseen: AES-256-GCM in chunks, in the STREAM construction
 * (Hoang, Reyhanitabar, Rogaway, Vizár 2015: "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance",
 * section 7), as age uses it (C2SP age.md, "Payload"). docs/storage-format.md has every byte.
 *
 * The host keeps the files: it may change, cut, swap, mix and delete them, which is refused, or bring back an older file of
 * the same place, which is not seen here (newest-seen.ts). It sees sizes, times and the header: kind, job, server, step.
 * What the header says is only believed once a chunk was opened: the codes of refusals are for honest operators.
 */
import assert from 'node:assert/strict'
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { writeFileAtomically } from './atomic-file.ts'
import { type SealedRefusal, StorageError } from './storage-error.ts'

/** What a sealed file is; whoever opens it says what it must be. */
export interface SealedContext {
  /** At most 16 lower-case letters, digits and hyphens. */
  readonly kind: string
  readonly jobDigest: Uint8Array
  readonly server: number
  readonly servers: number
  readonly step: number
}

export interface SealingOptions {
  /** 32 bytes; every file gets a key of its own. */
  readonly key: Uint8Array
  readonly context: SealedContext
}

export interface WriteSealedOptions extends SealingOptions {
  /** 32 bytes that were never used before under this key. */
  readonly salt?: Uint8Array
  readonly chunkBytes?: number
}

export interface ReadSealedOptions extends SealingOptions {
  /** The very file that is expected. */
  readonly salt?: Uint8Array
}

const magic = Buffer.from('CLOISTER-SEALED\0')
const formatVersion = 1
const saltAt = 96
const keyCheckAt = 128
export const headerBytes = 144
export const tagBytes = 16
const nonceBytes = 12
export const maxChunkBytes = 1 << 20

/** The sealed form of `content`, header first. Takes memory for two chunks. */
export async function* seal(
  content: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  { key, context, salt = randomBytes(32), chunkBytes = maxChunkBytes }: WriteSealedOptions,
): AsyncGenerator<Uint8Array> {
  const header = encodeHeader(key, context, salt, chunkBytes)
  yield header
  const chunkKey = fileKey(key, header)
  const chunk = Buffer.alloc(chunkBytes)
  let filled = 0
  let index = 0
  const sealed = (isLast: boolean): Buffer => {
    const cipher = createCipheriv('aes-256-gcm', chunkKey, nonceOf(index, isLast)).setAAD(header)
    const parts = [cipher.update(chunk.subarray(0, filled)), cipher.final(), cipher.getAuthTag()]
    index += 1
    filled = 0
    return Buffer.concat(parts)
  }
  for await (const part of content) {
    for (let taken = 0; taken < part.length; ) {
      // A full chunk waits for the next byte: only then it is known not to be the last.
      if (filled === chunkBytes) yield sealed(false)
      const piece = part.subarray(taken, taken + chunkBytes - filled)
      chunk.set(piece, filled)
      filled += piece.length
      taken += piece.length
    }
  }
  yield sealed(true)
}

/** Written beside its place, then renamed; waits for the disk between chunks. Returns the file's size. */
export async function writeSealed(
  path: string,
  content: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  options: WriteSealedOptions,
): Promise<number> {
  let bytes = 0
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const part of seal(content, options)) {
      bytes += part.length
      yield part
    }
  }
  await writeFileAtomically(path, counted())
  return bytes
}

/** The content, chunk by chunk, each verified before it is given out; that nothing is missing is known at the end only. */
export async function* readSealed(path: string, options: ReadSealedOptions): AsyncGenerator<Buffer> {
  const file = await reading(path, () => open(path, 'r'))
  try {
    const { size } = await reading(path, () => file.stat())
    const header = Buffer.alloc(Math.min(size, headerBytes))
    await readExactly(file, path, header, 0)
    const chunkBytes = verifyHeader(path, header, options)
    const key = fileKey(options.key, header)
    const bytesPerChunk = chunkBytes + tagBytes
    const chunks = Math.ceil((size - headerBytes) / bytesPerChunk)
    if (chunks === 0) throw truncated(path, 'a chunk behind the header', 'the end')
    for (let index = 0; index < chunks; index += 1) {
      const begin = headerBytes + index * bytesPerChunk
      const chunk = Buffer.alloc(Math.min(bytesPerChunk, size - begin))
      await readExactly(file, path, chunk, begin)
      yield openChunk(path, key, header, { chunk, index, isLast: index === chunks - 1 })
    }
  } finally {
    await file.close()
  }
}

function encodeHeader(key: Uint8Array, context: SealedContext, salt: Uint8Array, chunkBytes: number): Buffer {
  const { kind, jobDigest, server, servers, step } = context
  assert(/^[a-z0-9-]{1,16}$/.test(kind), `a kind of sealed file: ${kind}`)
  assert(
    [key, salt, jobDigest].every(({ length }) => length === 32),
    'key, salt and job digest have 32 bytes each',
  )
  assert(isChunkSize(chunkBytes), `chunks of ${chunkBytes} bytes`)
  const header = Buffer.alloc(headerBytes)
  magic.copy(header)
  header.writeUInt32LE(formatVersion, 16)
  header.writeUInt32LE(chunkBytes, 20)
  header.write(kind, 24, 'latin1')
  header.writeUInt32LE(server, 40)
  header.writeUInt32LE(servers, 44)
  header.writeBigUInt64LE(BigInt(step), 48)
  header.set(jobDigest, 56)
  header.set(salt, saltAt)
  header.set(keyCheck(key, salt), keyCheckAt)
  return header
}

const isChunkSize = (bytes: number): boolean => Number.isInteger(bytes) && bytes >= 1 && bytes <= maxChunkBytes

/** The size of chunks; every other byte of the header must be as expected. */
function verifyHeader(path: string, header: Buffer, { key, context, salt }: ReadSealedOptions): number {
  if (header.length < headerBytes) throw truncated(path, `a header of ${headerBytes} bytes`, `${header.length}`)
  if (!header.subarray(0, magic.length).equals(magic))
    throw refused(path, 'sealed-malformed', 'a sealed file', 'another')
  const version = header.readUInt32LE(16)
  if (version !== formatVersion) throw refused(path, 'sealed-malformed', `version ${formatVersion}`, `${version}`)
  const chunkBytes = header.readUInt32LE(20)
  if (!isChunkSize(chunkBytes)) {
    throw refused(path, 'sealed-malformed', `chunks of 1 to ${maxChunkBytes} bytes`, `${chunkBytes}`)
  }
  const theirs = header.subarray(saltAt, keyCheckAt)
  const expected = encodeHeader(key, context, salt ?? theirs, chunkBytes)
  const parts: readonly (readonly [SealedRefusal, number, number, (part: Buffer) => string])[] = [
    ['sealed-of-another-kind', 24, 40, (part) => part.toString('latin1').replace(/[^a-z0-9-]/g, '')],
    ['sealed-of-another-server', 40, 48, (part) => `server ${part.readUInt32LE()} of ${part.readUInt32LE(4)}`],
    ['sealed-of-another-step', 48, 56, (part) => `step ${part.readBigUInt64LE()}`],
    ['sealed-of-another-job', 56, 88, (part) => `job ${part.toString('hex')}`],
    ['sealed-malformed', 88, 96, () => 'zeros'],
    ['sealed-swapped', saltAt, keyCheckAt, (part) => `file ${part.toString('hex', 0, 8)}`],
  ]
  for (const [code, begin, end, say] of parts) {
    const [want, got] = [expected.subarray(begin, end), header.subarray(begin, end)]
    if (!want.equals(got)) throw refused(path, code, say(want), code === 'sealed-malformed' ? 'others' : say(got))
  }
  if (!timingSafeEqual(expected.subarray(keyCheckAt), header.subarray(keyCheckAt))) {
    throw refused(path, 'sealed-of-another-key', 'a file sealed with this key', 'one sealed with another')
  }
  return chunkBytes
}

function openChunk(
  path: string,
  key: Uint8Array,
  header: Buffer,
  { chunk, index, isLast }: { chunk: Buffer; index: number; isLast: boolean },
): Buffer {
  const content = decrypt(key, header, chunk, nonceOf(index, isLast))
  // An empty chunk ends an empty file only, so that one content has one form.
  if (content !== undefined && (content.length > 0 || index === 0)) return content
  if (isLast && decrypt(key, header, chunk, nonceOf(index, false)) !== undefined) {
    throw truncated(path, `more behind chunk ${index}`, 'the end')
  }
  throw refused(path, 'sealed-damaged', `chunk ${index} as it was sealed`, 'something else, or only a part of it')
}

function decrypt(key: Uint8Array, header: Buffer, chunk: Buffer, nonce: Buffer): Buffer | undefined {
  if (chunk.length < tagBytes) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes }).setAAD(header)
  decipher.setAuthTag(chunk.subarray(chunk.length - tagBytes))
  const content = decipher.update(chunk.subarray(0, chunk.length - tagBytes))
  try {
    decipher.final()
    return content
  } catch {
    return undefined
  }
}

/** The number of the chunk in eleven bytes, then whether it is the last. The key is this file's alone. */
function nonceOf(index: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(nonceBytes)
  nonce.writeBigUInt64BE(BigInt(index), 3)
  nonce[nonceBytes - 1] = isLast ? 1 : 0
  return nonce
}

function fileKey(key: Uint8Array, header: Buffer): Uint8Array {
  return derive(key, header.subarray(saltAt, keyCheckAt), 'cloister/sealed-file/v1/chunks', 32)
}

/** Tells a wrong key from a damaged file, and nothing about the key. */
function keyCheck(key: Uint8Array, salt: Uint8Array): Uint8Array {
  return derive(key, salt, 'cloister/sealed-file/v1/key-check', headerBytes - keyCheckAt)
}

function derive(key: Uint8Array, salt: Uint8Array, label: string, bytes: number): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', key, salt, label, bytes))
}

async function readExactly(file: FileHandle, path: string, target: Buffer, position: number): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await reading(path, () => file.read(target, done, target.length - done, position + done))
    if (bytesRead === 0) throw truncated(path, `${target.length} bytes at ${position}`, `${done}`)
    done += bytesRead
  }
}

async function reading<Result>(path: string, action: () => Promise<Result>): Promise<Result> {
  try {
    return await action()
  } catch (cause) {
    throw new StorageError('sealed-unreadable', `expected to read ${path}, got: ${(cause as Error).message}`, {
      hint: hints['sealed-unreadable'],
      cause,
    })
  }
}

function truncated(path: string, expected: string, got: string): StorageError {
  return refused(path, 'sealed-truncated', expected, got)
}

const damaged = 'The file was damaged or tampered with: bring back an intact copy of it, or go on from an older one.'
const mixedUp = 'It stands in the wrong place: bring every file back to where it was written.'
const hints: Record<SealedRefusal, string> = {
  'sealed-unreadable': 'Check that the file is there and may be read.',
  'sealed-malformed': 'It is not ours, of a newer version, or damaged: bring back an intact copy of it.',
  'sealed-truncated': damaged,
  'sealed-damaged': damaged,
  'sealed-of-another-key':
    'Only the enclave (or signer), machine or owner whose key sealed it can open it: go on there, provide that key, or begin anew elsewhere.',
  'sealed-of-another-kind': mixedUp,
  'sealed-of-another-job': 'Choose another directory, or go on with the job that it belongs to.',
  'sealed-of-another-server': 'Give each server its own directory, and keep the number of servers of the job.',
  'sealed-of-another-step': mixedUp,
  'sealed-swapped': mixedUp,
}

function refused(path: string, code: SealedRefusal, expected: string, got: string): StorageError {
  return new StorageError(code, `${path}: expected ${expected}, got ${got}`, { hint: hints[code] })
}
