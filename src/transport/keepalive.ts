// SPDX-License-Identifier: Apache-2.0
/**
 * Notices a peer that is gone without a word (power cut, pulled cable): when nothing has come for `keepaliveIntervalMs`, a PING
 * goes out; when still nothing has come `keepaliveTimeoutMs` later, the session is destroyed. So it is noticed after at
 * most two intervals and one timeout. A killed process needs none of this: its kernel closes the socket.
 */
import type { Http2Session } from 'node:http2'
import type { TransportLimits } from './limits.ts'
import { TransportError } from './transport-error.ts'
import type { Wire } from './wire.ts'

export function keepAlive(
  session: Http2Session,
  wire: Wire,
  limits: Pick<TransportLimits, 'keepaliveIntervalMs' | 'keepaliveTimeoutMs'>,
): void {
  const { keepaliveIntervalMs, keepaliveTimeoutMs } = limits
  let timer: NodeJS.Timeout
  let seen = 0

  const watch = () => {
    seen = wire.bytesReceived
    timer = setTimeout(() => (wire.bytesReceived === seen ? ping() : watch()), keepaliveIntervalMs)
  }

  const ping = () => {
    if (session.destroyed) return
    const deadline = setTimeout(() => {
      // When our own event loop was blocked, this timer comes before what the kernel holds has been read: let it be read.
      setImmediate(() => setImmediate(() => timer === deadline && decide()))
    }, keepaliveTimeoutMs)
    timer = deadline
    session.ping(() => {
      if (timer !== deadline || session.destroyed) return
      clearTimeout(deadline)
      watch()
    })
  }

  const decide = () => {
    if (wire.bytesReceived !== seen) return watch()
    const silentMs = keepaliveIntervalMs + keepaliveTimeoutMs
    session.destroy(new TransportError('connection-lost', `expected a sign of life within ${silentMs} ms, got none`))
    wire.destroy()
  }

  session.once('close', () => clearTimeout(timer))
  watch()
}
