// SPDX-License-Identifier: Apache-2.0
/**
 * One long-lived bidirectional gRPC call as a `Connection`: both sides of it, since after the headers they differ only in who
 * writes trailers how. A server ends with gRPC trailers; a client's reason goes in request trailers, which other gRPC servers
 * ignore. Everything received is the peer's: bounded, decoded, and never able to throw outside `incoming`.
 */
import assert from 'node:assert/strict'
import { constants, type Http2Session, type Http2Stream, type IncomingHttpHeaders } from 'node:http2'
import { AsyncQueue } from './async-queue.ts'
import type { Codec } from './codec.ts'
import type { Connection } from './connection.ts'
import { encodeFrame, FrameDecoder } from './grpc-frame.ts'
import { isGone } from './grpc-request.ts'
import { reasonOf, trailersOf } from './grpc-status.ts'
import type { TransportLimits } from './limits.ts'
import { type CloseReason, closedByPeer, reasonFor, TransportError } from './transport-error.ts'
import type { Wire } from './wire.ts'

export interface GrpcCall<Peer, Outgoing, Incoming> {
  readonly side: 'client' | 'server'
  /** Opened with `waitForTrailers`. */
  readonly stream: Http2Stream
  readonly wire: Wire
  readonly peer: Peer
  readonly codec: Codec<Outgoing, Incoming>
  readonly limits: TransportLimits
}

export class GrpcConnection<Peer, Outgoing, Incoming> implements Connection<Peer, Outgoing, Incoming> {
  readonly peer: Peer
  readonly #call: GrpcCall<Peer, Outgoing, Incoming>
  readonly #session: Http2Session
  readonly #decoder: FrameDecoder
  readonly #received: AsyncQueue<Incoming>
  /** Encoded and waiting for room. */
  #waiting: { frame: Uint8Array; sent: () => void; failed: (error: Error) => void }[] = []
  /** What the peer said when it ended its half; gRPC requires it of servers only. */
  #peerTrailers: IncomingHttpHeaders | undefined
  #closing: Promise<void> | undefined
  #whenSent: () => void = () => {}
  /** Why nothing can be sent any more, other than our own `close`. */
  #failure: Error | undefined
  #deadline: NodeJS.Timeout | undefined

  constructor(call: GrpcCall<Peer, Outgoing, Incoming>) {
    const { stream } = call
    assert(stream.session !== undefined)
    this.peer = call.peer
    this.#call = call
    this.#session = stream.session
    this.#decoder = new FrameDecoder(call.limits.maxMessageBytes)
    this.#received = new AsyncQueue(() => stream.resume())
    stream.on('data', (chunk: Buffer) => this.#receive(chunk))
    stream.pause()
    stream.on('trailers', (trailers) => this.#takeTrailers(trailers))
    stream.on('end', () => this.#peerEnded())
    stream.on('error', () => {}) // 'close' follows and says the same.
    stream.on('close', () => this.#streamClosed())
    stream.on('drain', () => this.#pump())
    call.wire.onDrain(() => this.#pump())
    this.#session.on('error', (cause) =>
      this.#fail(cause instanceof TransportError ? cause : lost('an error of HTTP/2', cause)),
    )
    this.#session.on('close', () => clearTimeout(this.#deadline))
  }

  get incoming(): AsyncIterable<Incoming> {
    return this.#received
  }

  get bytesSent(): number {
    return this.#call.wire.bytesSent
  }

  get bytesReceived(): number {
    return this.#call.wire.bytesReceived
  }

  async send(message: Outgoing): Promise<void> {
    const { codec, limits } = this.#call
    this.#assertMaySend()
    const frame = encodeFrame(codec.encode(message), limits.maxMessageBytes)
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

  /** After what waits to be sent; with a reason, instead of it. */
  async #endOurHalf(reason: CloseReason | undefined): Promise<void> {
    const { side, stream, limits } = this.#call
    if (isGone(stream)) return
    stream.once('wantTrailers', () => {
      if (isGone(stream)) return
      stream.sendTrailers(side === 'client' && reason === undefined ? {} : trailersOf(reason))
    })
    this.#setDeadline(`the peer to end within ${limits.closeTimeoutMs} ms of our end`)
    if (reason !== undefined) this.#dropWaiting(closedHere())
    await new Promise<void>((resolve) => {
      stream.once('close', resolve)
      this.#whenSent = () => stream.end(resolve)
      this.#pump()
    })
  }

  #receive(chunk: Buffer): void {
    if (this.#received.ended) return
    try {
      for (const payload of this.#decoder.push(chunk)) this.#received.push(this.#call.codec.decode(payload))
    } catch (error) {
      this.#refuse(error)
    }
    if (!this.#received.ended && this.#received.length > 0) this.#call.stream.pause()
  }

  /** The peer broke the protocol: tell it why, take nothing more from it. */
  #refuse(error: unknown): void {
    const reason = reasonFor(error)
    this.#failure = error instanceof Error ? error : new Error(reason.message, { cause: error })
    this.#received.end(this.#failure)
    this.#pump()
    this.#call.stream.resume()
    void this.close(reason)
  }

  /** A reason stops our sending at once, though what came before it is still to be read. */
  #takeTrailers(trailers: IncomingHttpHeaders): void {
    this.#peerTrailers = trailers
    const reason = 'grpc-status' in trailers ? reasonOf(trailers) : undefined
    if (reason === undefined) return
    this.#failure ??= closedByPeer(reason)
    this.#pump()
  }

  #peerEnded(): void {
    // Node also ends a stream that was reset; 'close' follows then and tells.
    if (this.#received.ended || this.#call.stream.rstCode !== constants.NGHTTP2_NO_ERROR) return
    try {
      if (this.#failure === undefined) {
        this.#decoder.end()
        if (this.#call.side === 'client' && this.#peerTrailers === undefined) throw lost('an end without gRPC status')
      }
      this.#received.end(this.#failure)
      if (this.#failure !== undefined) void this.close()
    } catch (error) {
      this.#refuse(error)
    }
  }

  #streamClosed(): void {
    const { stream, wire, limits } = this.#call
    const { NGHTTP2_NO_ERROR, NGHTTP2_CANCEL } = constants
    // A gRPC client may cancel what the server has ended: nothing is lost by that.
    const cancelled = stream.rstCode === NGHTTP2_NO_ERROR || stream.rstCode === NGHTTP2_CANCEL
    if (this.#closing !== undefined && cancelled && !wire.destroyed) this.#received.end()
    if (!this.#received.ended || this.#closing === undefined) {
      this.#fail(lost(`the end of the stream (HTTP/2 code ${stream.rstCode})`))
      return
    }
    // Not `close()`, which would end the socket while the peer may have unread data: the peer ends it, having read all.
    if (this.#session.destroyed) return
    this.#session.goaway()
    this.#setDeadline(`the peer to end the connection within ${limits.closeTimeoutMs} ms of our end`)
  }

  #setDeadline(expected: string): void {
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(
      () => this.#fail(lost('nothing', undefined, expected)),
      this.#call.limits.closeTimeoutMs,
    )
  }

  #fail(error: Error): void {
    clearTimeout(this.#deadline)
    this.#failure ??= error
    this.#received.end(error)
    this.#pump()
    this.#session.destroy()
    this.#call.wire.destroy()
  }

  /** Writes what waits, in order, as long as there is room. */
  #pump(): void {
    const { stream, wire, limits } = this.#call
    if (this.#failure !== undefined) this.#dropWaiting(this.#failure)
    while (this.#waiting.length > 0) {
      if (stream.writableLength + wire.queuedBytes > limits.sendBufferBytes) return
      const { frame, sent } = this.#waiting.shift()!
      stream.write(frame, () => this.#pump())
      sent()
    }
    this.#whenSent()
    this.#whenSent = () => {}
  }

  #dropWaiting(error: Error): void {
    for (const { failed } of this.#waiting.splice(0)) failed(error)
  }
}

function closedHere(): TransportError {
  return new TransportError('connection-closed', 'expected an open connection, got one closed on this side')
}

function lost(got: string, cause?: unknown, expected = 'an open connection'): TransportError {
  return new TransportError('connection-lost', `expected ${expected}, got ${got}`, { cause })
}
