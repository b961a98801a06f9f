// SPDX-License-Identifier: Apache-2.0
/**
 * gRPC's Length-Prefixed-Message (gRPC over HTTP/2, "Requests"): one byte Compressed-Flag, four bytes Message-Length,
 * big-endian, then the message. Everything decoded here is written by the peer.
 */
import assert from 'node:assert/strict'
import { TransportError } from './transport-error.ts'

export const frameHeaderBytes = 5

/**
 * One message as one chunk to write, for each costs TLS a record and its own copy. A copy: what the pieces are views of may
 * change as soon as this returns.
 */
export function encodeFrame(pieces: readonly Uint8Array[], maxMessageBytes: number): Buffer {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0)
  assertMessageSize(length, maxMessageBytes)
  assert(length <= 0xffff_ffff)
  const frame = Buffer.allocUnsafe(frameHeaderBytes + length)
  frame.writeUInt8(0, 0)
  frame.writeUInt32BE(length, 1)
  let offset = frameHeaderBytes
  for (const piece of pieces) {
    frame.set(piece, offset)
    offset += piece.length
  }
  return frame
}

/** Takes chunks as they come and gives whole messages. After an error it must not be used again. */
export class FrameDecoder {
  readonly #maxMessageBytes: number
  readonly #header = Buffer.alloc(frameHeaderBytes)
  #headerBytes = 0
  /** The message being filled; absent while the header is incomplete. */
  #message: Buffer | undefined
  #messageBytes = 0

  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes
  }

  /** The messages that this chunk completes, each before an error in what follows it. They may share the chunk's memory. */
  *push(chunk: Uint8Array): Generator<Uint8Array, void, undefined> {
    let offset = 0
    while (offset < chunk.length) {
      if (this.#message === undefined) {
        offset += this.#takeHeader(chunk, offset)
        if (this.#headerBytes < frameHeaderBytes) break
        const length = this.#messageLength()
        if (chunk.length - offset >= length) {
          this.#headerBytes = 0
          yield chunk.subarray(offset, offset + length)
          offset += length
          continue
        }
        this.#message = Buffer.allocUnsafeSlow(length)
        this.#messageBytes = 0
      }
      const part = chunk.subarray(offset, offset + this.#message.length - this.#messageBytes)
      this.#message.set(part, this.#messageBytes)
      this.#messageBytes += part.length
      offset += part.length
      if (this.#messageBytes === this.#message.length) {
        const message = this.#message
        this.#message = undefined
        this.#headerBytes = 0
        yield message
      }
    }
  }

  /** To be called when the peer has ended: an unfinished message is an error, not a shorter one. */
  end(): void {
    if (this.#headerBytes === 0) return
    const got =
      this.#message === undefined
        ? `${this.#headerBytes} of ${frameHeaderBytes} header bytes`
        : `${this.#messageBytes} of ${this.#message.length} bytes`
    throw new TransportError('message-truncated', `expected a whole message, got ${got} and then the end`)
  }

  #takeHeader(chunk: Uint8Array, offset: number): number {
    const part = chunk.subarray(offset, offset + frameHeaderBytes - this.#headerBytes)
    this.#header.set(part, this.#headerBytes)
    this.#headerBytes += part.length
    return part.length
  }

  #messageLength(): number {
    const flag = this.#header.readUInt8(0)
    if (flag !== 0) {
      throw new TransportError('message-malformed', `expected an uncompressed message (flag 0), got flag ${flag}`)
    }
    const length = this.#header.readUInt32BE(1)
    assertMessageSize(length, this.#maxMessageBytes)
    return length
  }
}

export function assertMessageSize(bytes: number, maxMessageBytes: number): void {
  if (bytes <= maxMessageBytes) return
  throw new TransportError(
    'message-too-large',
    `expected a message of at most ${maxMessageBytes} bytes, got one of ${bytes}`,
  )
}
