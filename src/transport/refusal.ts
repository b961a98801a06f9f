// SPDX-License-Identifier: Apache-2.0
/** How a server tells a peer that it has not authenticated why it refuses it: one `end` frame, written without reading. */
import type { Duplex } from 'node:stream'
import type { CloseReason } from './transport-error.ts'
import { endFrame } from './wire-frames.ts'

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
    socket.end(endFrame(reason))
  })
}
