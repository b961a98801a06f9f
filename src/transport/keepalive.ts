// SPDX-License-Identifier: Apache-2.0
/**
 * Notices a peer that is gone without a word (power cut, pulled cable). Each side sends a heartbeat when it has sent nothing for
 * `keepaliveIntervalMs`, and gives the other up when nothing came for an interval and `keepaliveTimeoutMs`, whatever else it
 * waits for: so nobody needs to answer. A killed process needs none of this: its kernel closes the socket.
 */
import type { ByteCounter } from './connection.ts'
import type { TransportLimits } from './limits.ts'
import { TransportError } from './transport-error.ts'

/** Until the returned function is called. */
export function keepAlive(
  counter: ByteCounter,
  limits: Pick<TransportLimits, 'keepaliveIntervalMs' | 'keepaliveTimeoutMs'>,
  sendHeartbeat: () => void,
  lost: (error: TransportError) => void,
): () => void {
  const { keepaliveIntervalMs, keepaliveTimeoutMs } = limits
  let sent = counter.bytesWritten
  let received = counter.bytesRead
  /** Counted in beats of our own timer: while our event loop was blocked, it is not the peer that was silent. */
  let silentMs = 0

  const beat = () => {
    if (counter.bytesWritten === sent) sendHeartbeat()
    sent = counter.bytesWritten
    silentMs = counter.bytesRead === received ? silentMs + keepaliveIntervalMs : 0
    received = counter.bytesRead
    if (silentMs < keepaliveIntervalMs + keepaliveTimeoutMs) return
    lost(new TransportError('connection-lost', `expected a sign of life within ${silentMs} ms, got none`))
  }
  const timer = setInterval(beat, keepaliveIntervalMs)
  return () => clearInterval(timer)
}
