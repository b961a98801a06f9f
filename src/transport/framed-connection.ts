// SPDX-License-Identifier: Apache-2.0
/**
 * Messages between two authenticated peers as frames on their TLS socket, the same on both sides. What the peer sends is always
 * read at once, so that neither side's sending waits for the other's: the bound is the credit that each gives the other for what
 * it has read. Everything received is the peer's: bounded, decoded, and never able to throw outside `incoming`.
 */
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { AsyncQueue } from './async-queue.ts'
import type { Codec } from './codec.ts'
import type { ByteCounter, Connection } from './connection.ts'
import { encodeFrame, type Frame, type FrameDecoder, frameHeaderBytes } from './frame.ts'
import { keepAlive } from './keepalive.ts'
import type { TransportLimits } from './limits.ts'
import { type CloseReason, closedByPeer, reasonFor, TransportError } from './transport-error.ts'
import {
  creditFrame,
  creditOf,
  endFrame,
  frameTypes,
  heartbeatFrame,
  messageCost,
  reasonOf,
  wireDecoder,
} from './wire-frames.ts'
import { within } from './within.ts'

export interface FramedEnd<Peer, Outgoing, Incoming> {
  /** Authenticated; what was read of it and not used is unshifted. */
  readonly socket: Duplex
  /** Of what the network carries. */
  readonly counter: ByteCounter
  readonly peer: Peer
  readonly codec: Codec<Outgoing, Incoming>
  readonly limits: TransportLimits
}

interface Waiting {
  readonly frame: Uint8Array
  readonly sent: () => void
  readonly failed: (error: Error) => void
}

export class FramedConnection<Peer, Outgoing, Incoming> implements Connection<Peer, Outgoing, Incoming> {
  readonly peer: Peer
  /** The socket is gone. */
  readonly closed: Promise<void>
  readonly #end: FramedEnd<Peer, Outgoing, Incoming>
  readonly #decoder: FrameDecoder
  readonly #received = new AsyncQueue<{ readonly message: Incoming; readonly cost: number }>()
  /** Encoded and waiting for room here or credit from the peer. */
  readonly #waiting: Waiting[] = []
  /** What the peer lets us send; of the last message it may be overdrawn. */
  #credit = 0
  /** What we let the peer send, and what was read since we last said so. */
  #granted: number
  #taken = 0
  #peerEnded = false
  /** The peer broke the protocol; what else it sends is not looked at. */
  #refused = false
  #closing: Promise<void> | undefined
  #endSent = false
  #whenSent: () => void = () => {}
  readonly #opened: Promise<void>
  #settleOpened!: (error?: Error) => void
  /** Why nothing can be sent any more, other than our own `close`. */
  #failure: Error | undefined
  #deadline: NodeJS.Timeout | undefined

  constructor(end: FramedEnd<Peer, Outgoing, Incoming>) {
    const { socket, counter, limits } = end
    this.peer = end.peer
    this.#end = end
    this.#decoder = wireDecoder(limits.maxMessageBytes)
    this.#opened = new Promise((resolve, reject) => {
      this.#settleOpened = (error) => (error === undefined ? resolve() : reject(error))
    })
    this.#opened.catch(() => {}) // Only a client waits for it.
    const stopKeepAlive = keepAlive(
      counter,
      limits,
      () => this.#write(heartbeatFrame),
      (error) => this.#fail(error),
    )
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        stopKeepAlive()
        this.#socketClosed()
        resolve()
      })
    })
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.once('end', () => this.#socketEnded())
    socket.on('error', (cause) => this.#fail(lost('an error of its socket', cause)))
    socket.resume()
    this.#granted = limits.windowBytes
    this.#write(creditFrame(limits.windowBytes))
  }

  /** Resolves when the peer has authenticated us too; what it says first is how much it takes, or why it refuses. */
  accepted(): Promise<void> {
    const { authenticationTimeoutMs } = this.#end.limits
    return within(authenticationTimeoutMs, 'authentication-timeout', 'an answer of the server', () => {
      return this.#opened
    }).catch((error) => {
      this.destroy()
      throw error
    })
  }

  get incoming(): AsyncIterable<Incoming> {
    return { [Symbol.asyncIterator]: () => ({ next: () => this.#take() }) }
  }

  get bytesSent(): number {
    return this.#end.counter.bytesWritten
  }

  get bytesReceived(): number {
    return this.#end.counter.bytesRead
  }

  async send(message: Outgoing): Promise<void> {
    const { codec, limits } = this.#end
    this.#assertMaySend()
    const frame = encodeFrame(frameTypes.message, codec.encode(message), limits.maxMessageBytes)
    return new Promise((sent, failed) => {
      this.#waiting.push({ frame, sent, failed })
      this.#pump()
    })
  }

  close(reason?: CloseReason): Promise<void> {
    this.#closing ??= this.#endOurHalf(reason)
    return this.#closing
  }

  destroy(cause?: Error): void {
    this.#fail(cause ?? closedHere())
  }

  #assertMaySend(): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#closing !== undefined) throw closedHere()
  }

  async #take(): Promise<IteratorResult<Incoming>> {
    const next = await this.#received[Symbol.asyncIterator]().next()
    if (next.done === true) return next
    this.#taken += next.value.cost
    if (this.#taken * 4 >= this.#end.limits.windowBytes && !this.#peerEnded) {
      const credit = this.#taken
      this.#taken = 0
      this.#granted += credit
      this.#write(creditFrame(credit))
    }
    return { done: false, value: next.value.message }
  }

  /** After what waits to be sent; with a reason, instead of it. */
  async #endOurHalf(reason: CloseReason | undefined): Promise<void> {
    const { socket, limits } = this.#end
    if (socket.destroyed) return
    this.#deadline = setTimeout(
      () => this.#fail(lost('nothing', undefined, `the peer to end within ${limits.closeTimeoutMs} ms of our end`)),
      limits.closeTimeoutMs,
    )
    if (reason !== undefined) this.#dropWaiting(closedHere())
    await new Promise<void>((resolve) => {
      void this.closed.then(resolve)
      this.#whenSent = () => {
        this.#endSent = true
        socket.write(endFrame(reason), () => resolve())
        this.#finish()
      }
      this.#pump()
    })
  }

  #receive(chunk: Buffer): void {
    if (this.#refused) return
    try {
      for (const frame of this.#decoder.push(chunk)) this.#takeFrame(frame)
    } catch (error) {
      this.#refuse(error)
    }
  }

  #takeFrame({ type, payload }: Frame): void {
    switch (type) {
      case frameTypes.message: {
        const cost = messageCost(payload.length)
        if (this.#peerEnded || this.#granted <= 0) {
          const expected = this.#peerEnded ? 'no message after the end' : 'no message beyond the credit'
          throw new TransportError('message-malformed', `expected ${expected}, got one`)
        }
        this.#granted -= cost
        this.#received.push({ message: this.#end.codec.decode(payload), cost })
        break
      }
      case frameTypes.credit:
        this.#credit += creditOf(payload)
        this.#settleOpened()
        this.#pump()
        break
      case frameTypes.end:
        this.#takeEnd(reasonOf(payload))
        break
      default:
        assert(type === frameTypes.heartbeat)
    }
  }

  /** A reason stops our sending at once, though what came before it is still to be read. */
  #takeEnd(reason: CloseReason | undefined): void {
    if (this.#peerEnded) throw new TransportError('message-malformed', 'expected one end, got another')
    this.#peerEnded = true
    if (reason !== undefined) this.#failure ??= closedByPeer(reason)
    this.#received.end(this.#failure)
    if (this.#failure !== undefined) {
      this.#settleOpened(this.#failure)
      this.#dropWaiting(this.#failure)
      void this.close()
    }
    this.#finish()
  }

  /** The peer broke the protocol: tell it why, take nothing more from it. */
  #refuse(error: unknown): void {
    const reason = reasonFor(error)
    this.#failure ??= error instanceof Error ? error : new Error(reason.message, { cause: error })
    this.#refused = true
    this.#received.end(this.#failure)
    this.#settleOpened(this.#failure)
    this.#dropWaiting(this.#failure)
    void this.close(reason)
  }

  /** Both have said all: the one whose end of TCP comes last knows that everything has arrived. */
  #finish(): void {
    if (this.#endSent && this.#peerEnded) this.#end.socket.end()
  }

  #socketEnded(): void {
    if (this.#endSent && (this.#peerEnded || this.#refused)) this.#end.socket.end()
    else this.#fail(lost('its end'))
  }

  #socketClosed(): void {
    clearTimeout(this.#deadline)
    if (this.#endSent && this.#peerEnded) return
    this.#fail(lost('its end'))
  }

  #fail(error: Error): void {
    clearTimeout(this.#deadline)
    this.#whenSent = () => {} // No end that could be taken for an orderly one.
    this.#end.socket.destroy()
    this.#failure ??= error
    this.#received.end(error)
    this.#settleOpened(error)
    this.#dropWaiting(this.#failure)
  }

  #write(frame: Uint8Array): void {
    const { socket } = this.#end
    if (socket.writable) socket.write(frame)
  }

  /** Writes what waits, in order, as long as there is room here and at the peer. */
  #pump(): void {
    const { socket, limits } = this.#end
    while (this.#waiting.length > 0) {
      if (this.#credit <= 0 || socket.writableLength > limits.sendBufferBytes) return
      const { frame, sent } = this.#waiting.shift()!
      this.#credit -= messageCost(frame.length - frameHeaderBytes)
      socket.write(frame, () => this.#pump())
      sent()
    }
    this.#whenSent()
    this.#whenSent = () => {}
  }

  #dropWaiting(error: Error): void {
    for (const { failed } of this.#waiting.splice(0)) failed(error)
    this.#pump()
  }
}

function closedHere(): TransportError {
  return new TransportError('connection-closed', 'expected an open connection, got one closed on this side')
}

function lost(got: string, cause?: unknown, expected = 'an open connection'): TransportError {
  return new TransportError('connection-lost', `expected ${expected}, got ${got}`, { cause })
}
