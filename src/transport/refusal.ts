// SPDX-License-Identifier: Apache-2.0
/**
 * How a server tells a peer that it has not authenticated why it refuses it. It may not speak HTTP/2 with that peer, so it
 * writes, without reading, the two frames that any HTTP/2 client understands: an empty SETTINGS and a GOAWAY (RFC 9113
 * §6.5, §6.8) whose debug data is `code: message`, the public part of the error.
 */
import { constants } from 'node:http2'
import type { Duplex } from 'node:stream'
import { cleanReason } from './grpc-status.ts'
import type { CloseReason } from './transport-error.ts'

const maxDebugBytes = 2048
/** Enough for one round trip; the peer holds a place among the handshakes as long. */
const maxLingerMs = 1000

/** Resolves when the peer has taken it, or after a second. */
export function tellRefusal(socket: Duplex, reason: CloseReason): Promise<void> {
  if (socket.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    const deadline = setTimeout(resolve, maxLingerMs)
    socket.once('close', () => {
      clearTimeout(deadline)
      resolve()
    })
    socket.resume() // To a close with unread bytes the kernel answers with a reset, which may overtake what we say.
    socket.end(Buffer.concat([frame(4, Buffer.alloc(0)), goAway(reason)]))
  })
}

/** What a server said in its GOAWAY; undefined when it said nothing of that form. */
export function parseRefusal(debugData: Uint8Array | undefined): CloseReason | undefined {
  const text = Buffer.from(debugData ?? [])
    .subarray(0, maxDebugBytes)
    .toString('utf8')
  const [, code, message] = /^([a-z][a-z0-9-]{0,63}): (.*)$/su.exec(text) ?? []
  return code === undefined ? undefined : cleanReason(code, message)
}

function goAway({ code, message }: CloseReason): Buffer {
  const fixed = Buffer.alloc(8) // Last stream 0: we have taken none.
  fixed.writeUInt32BE(constants.NGHTTP2_INADEQUATE_SECURITY, 4)
  return frame(7, Buffer.concat([fixed, Buffer.from(`${code}: ${message}`).subarray(0, maxDebugBytes)]))
}

/** RFC 9113 §4.1, on stream 0 and without flags. */
function frame(type: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(9)
  header.writeUIntBE(payload.length, 0, 3)
  header.writeUInt8(type, 3)
  return Buffer.concat([header, payload])
}
