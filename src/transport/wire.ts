// SPDX-License-Identifier: Apache-2.0
/**
 * What carries HTTP/2: a TLS socket, or an end in memory. A wire lets node:http2 send and receive at the same time, which by
 * itself it does not: while a write to its socket is under way its session reads nothing (`Http2Session::OnDataChunkReceived`
 * pauses), so two peers that both send more than the kernel buffers wait for each other for ever. Here writes are
 * acknowledged at once and queue, up to a bound that our own messages never reach and a peer that floods us with pings does.
 */
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import type { TransportLimits } from './limits.ts'

export class Wire {
  /** For node:http2. */
  readonly stream: Duplex
  readonly #socket: Duplex
  readonly #counter: ByteCounter

  constructor(socket: Duplex, counter: ByteCounter, limits: TransportLimits) {
    this.#socket = socket
    this.#counter = counter
    this.stream = fullDuplex(socket, limits.sendBufferBytes + 2 * limits.maxMessageBytes + 2 ** 20)
  }

  get bytesSent(): number {
    return this.#counter.bytesWritten
  }

  get bytesReceived(): number {
    return this.#counter.bytesRead
  }

  /** Taken from HTTP/2, not yet by the network. */
  get queuedBytes(): number {
    return this.#socket.writableLength
  }

  get destroyed(): boolean {
    return this.#socket.destroyed
  }

  onDrain(listener: () => void): void {
    this.#socket.on('drain', listener)
  }

  destroy(): void {
    this.stream.destroy()
  }
}

export interface ByteCounter {
  readonly bytesWritten: number
  readonly bytesRead: number
}

/** `raw` is the socket under `socket`: it counts what TCP carries. */
export function tlsWire(raw: Socket, socket: TLSSocket, limits: TransportLimits): Wire {
  return new Wire(socket, raw, limits)
}

/** Two ends in one process: what one is given, the other gives. */
export function memoryWires(limits: readonly [TransportLimits, TransportLimits]): readonly [Wire, Wire] {
  const sentBytes = [0, 0]
  /** By end: it asked for a chunk and there was none; or there is one and it has not asked. */
  const wanting = [false, false]
  const held: [(() => void)?, (() => void)?] = []
  const ends = [0, 1].map((mine) => {
    const other = 1 - mine
    return new Duplex({
      read: () => {
        const give = held[mine]
        held[mine] = undefined
        wanting[mine] = give === undefined
        give?.()
      },
      write: (chunk: Buffer, _encoding, done) => {
        sentBytes[mine]! += chunk.length
        const give = () => {
          ends[other]!.push(chunk)
          done()
        }
        if (wanting[other]) {
          wanting[other] = false
          give()
        } else {
          held[other] = give
        }
      },
      final: (done) => {
        ends[other]!.push(null)
        done()
      },
      destroy: (error, done) => {
        setImmediate(() => ends[other]!.destroy())
        done(error)
      },
    })
  })
  const counter = (mine: number): ByteCounter => ({
    get bytesWritten() {
      return sentBytes[mine]!
    },
    get bytesRead() {
      return sentBytes[1 - mine]!
    },
  })
  return [new Wire(ends[0]!, counter(0), limits[0]), new Wire(ends[1]!, counter(1), limits[1])]
}

function fullDuplex(socket: Duplex, maxQueuedBytes: number): Duplex {
  const acknowledge = (done: () => void) => {
    if (socket.writableLength <= maxQueuedBytes) done()
    else socket.once('drain', done)
  }
  const duplex = new Duplex({
    allowHalfOpen: false,
    read: () => {
      socket.resume()
    },
    write: (chunk: Buffer, _encoding, done) => {
      socket.write(chunk)
      acknowledge(done)
    },
    writev: (chunks, done) => {
      socket.cork()
      for (const { chunk } of chunks) socket.write(chunk)
      socket.uncork()
      acknowledge(done)
    },
    final: (done) => {
      socket.end(done)
    },
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  socket.on('data', (chunk: Buffer) => {
    if (!duplex.push(chunk)) socket.pause()
  })
  socket.once('end', () => duplex.push(null))
  socket.on('error', () => duplex.destroy()) // A TLS alert or a record that does not decrypt closes nothing by itself.
  socket.once('close', () => {
    // After an orderly end there may be bytes still to be read.
    if (!socket.readableEnded) duplex.destroy()
  })
  return duplex
}
