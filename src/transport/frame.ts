// SPDX-License-Identifier: Apache-2.0
/**
 * Frames: type (1 byte), length of the payload (4 bytes, big-endian), payload. gRPC's Length-Prefixed-Message (gRPC over HTTP/2,
 * "Requests") has this form too, its type being the Compressed-Flag. Everything decoded here is written by the peer.
 */
import assert from 'node:assert/strict'
import { TransportError } from './transport-error.ts'

export const frameHeaderBytes = 5

export interface Frame {
  readonly type: number
  readonly payload: Uint8Array
}

/**
 * One chunk to write, for each costs TLS a record and its own copy. A copy: what the pieces are views of may change as soon
 * as this returns.
 */
export function encodeFrame(type: number, pieces: readonly Uint8Array[], maxMessageBytes: number): Buffer {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0)
  assertMessageSize(length, maxMessageBytes)
  assert(length <= 0xffff_ffff)
  const frame = Buffer.allocUnsafe(frameHeaderBytes + length)
  frame.writeUInt8(type, 0)
  frame.writeUInt32BE(length, 1)
  let offset = frameHeaderBytes
  for (const piece of pieces) {
    frame.set(piece, offset)
    offset += piece.length
  }
  return frame
}

/** Takes chunks as they come and gives whole frames. After an error it must not be used again. */
export class FrameDecoder {
  readonly #maxBytesOf: (type: number) => number | undefined
  readonly #header = Buffer.alloc(frameHeaderBytes)
  #headerBytes = 0
  /** What is being filled; absent while the header is incomplete. */
  #payload: Buffer | undefined
  #payloadBytes = 0

  /** `maxBytesOf`: the most that a frame of this type may hold; undefined for a type that has no place here. */
  constructor(maxBytesOf: (type: number) => number | undefined) {
    this.#maxBytesOf = maxBytesOf
  }

  /** The frames that this chunk completes, each before an error in what follows it. They may share the chunk's memory. */
  *push(chunk: Uint8Array): Generator<Frame, void, undefined> {
    let offset = 0
    while (offset < chunk.length) {
      if (this.#payload === undefined) {
        offset += this.#takeHeader(chunk, offset)
        if (this.#headerBytes < frameHeaderBytes) break
        const length = this.#payloadLength()
        if (chunk.length - offset >= length) {
          this.#headerBytes = 0
          yield { type: this.#header[0]!, payload: chunk.subarray(offset, offset + length) }
          offset += length
          continue
        }
        this.#payload = Buffer.allocUnsafeSlow(length)
        this.#payloadBytes = 0
      }
      const part = chunk.subarray(offset, offset + this.#payload.length - this.#payloadBytes)
      this.#payload.set(part, this.#payloadBytes)
      this.#payloadBytes += part.length
      offset += part.length
      if (this.#payloadBytes === this.#payload.length) {
        const payload = this.#payload
        this.#payload = undefined
        this.#headerBytes = 0
        yield { type: this.#header[0]!, payload }
      }
    }
  }

  /** To be called when the peer has ended: an unfinished frame is an error, not a shorter one. */
  end(): void {
    if (this.#headerBytes === 0) return
    const got =
      this.#payload === undefined
        ? `${this.#headerBytes} of ${frameHeaderBytes} header bytes`
        : `${this.#payloadBytes} of ${this.#payload.length} bytes`
    throw new TransportError('message-truncated', `expected a whole message, got ${got} and then the end`)
  }

  #takeHeader(chunk: Uint8Array, offset: number): number {
    const part = chunk.subarray(offset, offset + frameHeaderBytes - this.#headerBytes)
    this.#header.set(part, this.#headerBytes)
    this.#headerBytes += part.length
    return part.length
  }

  #payloadLength(): number {
    const type = this.#header.readUInt8(0)
    const maxBytes = this.#maxBytesOf(type)
    if (maxBytes === undefined) {
      throw new TransportError('message-malformed', `expected a frame of a known type, got type ${type}`)
    }
    const length = this.#header.readUInt32BE(1)
    assertMessageSize(length, maxBytes)
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
