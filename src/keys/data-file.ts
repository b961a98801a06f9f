// SPDX-License-Identifier: Apache-2.0
/**
 * A data file as its owner left it: plain, compressed (`.gz`), encrypted with age (`.age`), or compressed and then encrypted
 * (`.gz.age`), read as a stream of its content with bounded memory. The host has the file: what is encrypted it cannot read,
 * and cannot change unnoticed; what is not, it can.
 */
import { createReadStream } from 'node:fs'
import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { decryptAge } from './age.ts'
import { KeysError } from './keys-error.ts'

const readBytes = 2 ** 18

/** The file's content. Throws a KeysError at the first byte that is not as its owner wrote it; what came before was. */
export async function* openDataFile(path: string, identities: readonly string[]): AsyncGenerator<Uint8Array> {
  const encrypted = path.endsWith('.age')
  const stored = fileChunks(path)
  const opened = encrypted ? decryptAge(stored, identities, path) : stored
  const name = encrypted ? path.slice(0, -'.age'.length) : path
  yield* name.endsWith('.gz') ? gunzip(opened, path) : opened
}

async function* fileChunks(path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* createReadStream(path, { highWaterMark: readBytes }) as AsyncIterable<Buffer>
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : String(cause)
    throw new KeysError('data-file-unreadable', `expected to read ${path}, got: ${got}`, {
      hint: 'Check the path, its permissions and the disk.',
      cause,
    })
  }
}

async function* gunzip(source: AsyncIterable<Uint8Array>, path: string): AsyncGenerator<Uint8Array> {
  const unpacked = createGunzip({ chunkSize: readBytes })
  // The callback takes what goes wrong on either side; the loop below throws the same.
  pipeline(Readable.from(source), unpacked, () => {})
  try {
    yield* unpacked as AsyncIterable<Buffer>
  } catch (cause) {
    if (cause instanceof KeysError) throw cause
    const got = cause instanceof Error ? cause.message : String(cause)
    throw new KeysError('data-file-compression-damaged', `${path}: expected gzip, got: ${got}`, {
      hint: 'The file is cut or was not made by gzip: compress it again.',
      cause,
    })
  }
}
