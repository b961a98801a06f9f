// SPDX-License-Identifier: Apache-2.0
/**
 * A TLS socket as node:http2 must see it to send and receive at the same time. While a write to its socket is under way, Node's
 * HTTP/2 session reads nothing (`Http2Session::OnDataChunkReceived` pauses); two peers that both send more than the kernel buffers
 * then wait for each other for ever. So writes are acknowledged at once and queue in the TLS socket, up to a bound that our own
 * sending never reaches and a peer that floods us with pings does.
 */
import { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'

export function fullDuplex(socket: TLSSocket, maxQueuedBytes: number): Duplex {
  const duplex = new Duplex({
    read: () => socket.resume(),
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
    final: (done) => socket.end(done),
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  const acknowledge = (done: (error?: Error) => void) => {
    if (socket.writableLength <= maxQueuedBytes) done()
    else socket.once('drain', done)
  }
  socket.on('data', (chunk: Buffer) => {
    if (!duplex.push(chunk)) socket.pause()
  })
  socket.once('end', () => duplex.push(null))
  socket.once('close', () => duplex.destroy())
  return duplex
}
