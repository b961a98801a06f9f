// SPDX-License-Identifier: Apache-2.0
/**
 * Files in the age format (age-encryption.org/v1), streaming in both directions with memory that does not grow with the file.
 * What is decrypted comes from the host: it may cut, change or swap files. Each chunk of 64 KiB is authenticated before a byte
 * of it is given out, and an end that is not the true end is an error, so a reader must not take the last chunk for the whole.
 */
import { ReadableStream } from 'node:stream/web'
import { Decrypter, Encrypter } from 'age-encryption'
import { CodedError } from '../errors.ts'
import { KeysError } from './keys-error.ts'

/** A header has one stanza a recipient, some 150 bytes each; typage itself would read on for ever. */
const maxHeaderBytes = 1 << 20
/** Of what is handed on at once, so that a header cannot hide its length in one large chunk. */
const pieceBytes = 65_536

/** Throws `age-recipient-malformed` unless all are `age1…` public keys, before anything is written. */
export function encrypterTo(recipients: readonly string[]): Encrypter {
  const encrypter = new Encrypter()
  for (const recipient of recipients) {
    try {
      encrypter.addRecipient(recipient)
    } catch (cause) {
      throw new KeysError(
        'age-recipient-malformed',
        `expected a public key of age (age1…), got "${shown(recipient)}"`,
        {
          hint: 'age-keygen -y FILE and cloister keygen print public keys.',
          cause,
        },
      )
    }
  }
  if (recipients.length > 0) return encrypter
  throw new KeysError('age-recipient-malformed', 'expected at least one public key of age, got none', {
    hint: 'Without a recipient nobody could open the file: name at least one in release.recipients of the job.',
  })
}

/** The identities in the text of an identity file: one `AGE-SECRET-KEY-…` a line, empty lines and comments left out. */
export function parseIdentities(text: string): readonly string[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim())
  const identities = lines.filter((line) => line !== '' && !line.startsWith('#'))
  if (identities.length === 0) throw malformedIdentity('none')
  decrypterFor(identities)
  return identities
}

export async function* encryptAge(
  source: AsyncIterable<Uint8Array>,
  recipients: readonly string[],
): AsyncGenerator<Uint8Array> {
  yield* await encrypterTo(recipients).encrypt(ReadableStream.from(source))
}

/** `name` is what errors call the file. */
export async function* decryptAge(
  source: AsyncIterable<Uint8Array>,
  identities: readonly string[],
  name: string,
): AsyncGenerator<Uint8Array> {
  if (identities.length === 0) {
    throw new KeysError('age-identity-missing', `${name}: expected an age identity to open it with, got none`, {
      hint: 'Hand one to this enclave: cloister provision HOST:PORT --job FILE --policy FILE --owner FILE --name NAME --key FILE.',
    })
  }
  const decrypter = decrypterFor(identities)
  const watched = new WatchedSource(source, name)
  try {
    const plain = await decrypter.decrypt(ReadableStream.from(watched.chunks()))
    watched.headerDone = true
    yield* plain
  } catch (cause) {
    throw watched.failure ?? translated(cause, name, watched.headerDone)
  }
}

/** Bounds the header, and keeps what the source itself threw apart from what decryption says. */
class WatchedSource {
  failure: unknown
  headerDone = false
  readonly #source: AsyncIterable<Uint8Array>
  readonly #name: string

  constructor(source: AsyncIterable<Uint8Array>, name: string) {
    this.#source = source
    this.#name = name
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    let bytes = 0
    try {
      for await (const chunk of this.#source) {
        for (let start = 0; start < chunk.length; start += pieceBytes) {
          if (!this.headerDone && bytes > maxHeaderBytes) {
            throw malformedFile(this.#name, `a header of at most ${maxHeaderBytes} bytes`, 'a longer one')
          }
          bytes += Math.min(pieceBytes, chunk.length - start)
          yield chunk.subarray(start, start + pieceBytes)
        }
      }
    } catch (error) {
      this.failure = error
      throw error
    }
  }
}

function decrypterFor(identities: readonly string[]): Decrypter {
  const decrypter = new Decrypter()
  identities.forEach((identity, index) => {
    try {
      decrypter.addIdentity(identity)
    } catch {
      // Without the cause: a decoder's message may quote what it could not decode.
      throw malformedIdentity(`another text as number ${index + 1}`)
    }
  })
  return decrypter
}

function malformedIdentity(got: string): KeysError {
  return new KeysError('age-identity-malformed', `expected an age identity (AGE-SECRET-KEY-1…), got ${got}`, {
    hint: 'age-keygen and cloister keygen write identity files; identities under a passphrase must be decrypted first.',
  })
}

function malformedFile(name: string, expected: string, got: string, cause?: unknown): KeysError {
  return new KeysError('age-file-malformed', `${name}: expected ${expected}, got ${got}`, {
    hint: 'Encrypt it anew in the binary format: age -r age1… -o FILE.age FILE.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function translated(cause: unknown, name: string, headerDone: boolean): unknown {
  if (cause instanceof CodedError) return cause
  const got = cause instanceof Error ? cause.message : String(cause)
  if (got.startsWith('no identity matched')) {
    return new KeysError('age-identity-wrong', `${name}: expected an identity that opens it, got only others`, {
      hint: 'It was encrypted to another public key: encrypt it to that of the provisioned identity, or provision the right one.',
      cause,
    })
  }
  if (!headerDone && got !== 'invalid header HMAC') return malformedFile(name, 'the header of an age file', got, cause)
  return new KeysError('age-file-damaged', `${name}: expected a whole age file, got one that was changed or cut`, {
    hint: 'Copy it again from its owner and compare checksums. If it stays, somebody changes it on this host.',
    cause,
  })
}

const shown = (text: string): string => text.slice(0, 80).replaceAll(/[^\x20-\x7e]/g, '?')
