// SPDX-License-Identifier: Apache-2.0
/**
 * Frames of the attestation exchange on a bare TLS socket: type (1 byte), length (2 bytes, big-endian), body. The other end
 * is not trusted yet: a length is checked against the bound of the frame that is due before a byte of it is awaited, and
 * every wait ends with the signal. Takes exactly its own bytes: what follows the last frame stays in the socket for messages.
 */
import assert from 'node:assert/strict'
import type { TLSSocket } from 'node:tls'
import { cancelled } from './deadline.ts'
import { RatlsError } from './ratls-error.ts'

/** `proof` and `key` are of key provisioning (keys/provisioning-exchange.ts); a frame that is not due is refused unread. */
export const frameTypes = { hello: 1, quote: 2, accepted: 3, refused: 4, proof: 5, key: 6 } as const
export type FrameType = keyof typeof frameTypes

/** Gramine allows 8192 for a quote; refusals are short sentences. */
const maxBodyBytes = {
  hello: 66,
  quote: 16_384,
  accepted: 0,
  refused: 1024,
  proof: 96,
  key: 8192,
} as const satisfies Record<FrameType, number>
const headerBytes = 3

export interface Frame {
  readonly type: FrameType
  readonly body: Buffer
}

export class FrameSocket {
  readonly #socket: TLSSocket
  readonly #signal: AbortSignal
  #wake: (() => void) | undefined

  /** Call `release` when done. `signal` ends every wait; its reason is the cause of the error thrown. */
  constructor(socket: TLSSocket, signal: AbortSignal) {
    this.#socket = socket
    this.#signal = signal
    // One listener for the whole exchange: adding 'readable' anew while half a frame is buffered fires at once, for ever.
    socket.on('readable', this.#onEvent)
    socket.on('end', this.#onEvent)
    socket.on('close', this.#onEvent)
    socket.on('error', this.#onEvent)
    signal.addEventListener('abort', this.#onEvent)
  }

  release(): void {
    for (const event of ['readable', 'end', 'close', 'error']) this.#socket.off(event, this.#onEvent)
    this.#signal.removeEventListener('abort', this.#onEvent)
  }

  /** The next frame, which must be `expected` or a refusal. */
  async read(expected: FrameType): Promise<Frame> {
    const header = await this.#take(headerBytes)
    const type = header[0] === frameTypes.refused ? 'refused' : expected
    if (header[0] !== frameTypes[type])
      throw malformed(`expected a frame ${expected} (${frameTypes[expected]}), got type ${header[0]}`)
    const length = header.readUInt16BE(1)
    if (length > maxBodyBytes[type])
      throw malformed(`expected at most ${maxBodyBytes[type]} bytes in a frame ${type}, got ${length}`)
    return { type, body: length === 0 ? Buffer.alloc(0) : await this.#take(length) }
  }

  write(type: FrameType, body: Uint8Array): void {
    assert(body.length <= maxBodyBytes[type], `a frame ${type} of ${body.length} bytes`)
    const header = Buffer.alloc(headerBytes)
    header[0] = frameTypes[type]
    header.writeUInt16BE(body.length, 1)
    if (this.#socket.writable) this.#socket.write(Buffer.concat([header, body]))
  }

  /**
   * Ends our half and waits for the peer to end its own, for `lingerMs` at most: closing with unread bytes resets the
   * connection, and the peer would never read why. Not cut short by the signal: a deadline that has passed is a reason too.
   */
  async end(lingerMs: number): Promise<void> {
    let lingering = true
    const timer = setTimeout(() => {
      lingering = false
      this.#onEvent()
    }, lingerMs)
    if (this.#socket.writable) this.#socket.end()
    while (lingering && !this.#socket.destroyed && !this.#socket.readableEnded) {
      if (this.#socket.read() === null) await this.#event()
    }
    clearTimeout(timer)
  }

  async #take(size: number): Promise<Buffer> {
    for (;;) {
      if (this.#signal.aborted) throw cancelled(this.#signal.reason)
      const bytes = this.#socket.read(size) as Buffer | null
      if (bytes !== null && bytes.length === size) return bytes
      if (bytes !== null || this.#over())
        throw new RatlsError('ratls-exchange-closed', `the peer closed while ${size} bytes were due`, {
          hint: 'The peer went away before both sides had attested each other; its own log says why.',
          cause: this.#socket.errored ?? undefined,
        })
      await this.#event()
    }
  }

  #over(): boolean {
    return this.#signal.aborted || this.#socket.destroyed || this.#socket.readableEnded
  }

  #event(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  readonly #onEvent = (): void => {
    this.#wake?.()
    this.#wake = undefined
  }
}

export function malformed(message: string): RatlsError {
  return new RatlsError('ratls-exchange-malformed', message, {
    hint: 'The peer does not speak this version of the attestation exchange (docs/protocol.md).',
  })
}
