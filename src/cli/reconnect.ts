// SPDX-License-Identifier: Apache-2.0
/** Which failures to connect are worth another attempt, and the attempts. */
import { setTimeout as sleep } from 'node:timers/promises'
import { publicError } from '../errors.ts'
import { FederationError } from '../federation/federation-error.ts'
import { RatlsError } from '../ratls/ratls-error.ts'
import { TransportError } from '../transport/transport-error.ts'
import type { RoleSession } from './role.ts'

/**
 * The server is not there (yet, or any more), went away before both sides had proven themselves, or is too slow to; a server
 * that is not what it should be is another matter.
 */
const retried: ReadonlySet<string> = new Set([
  ...['connect-failed', 'connection-lost', 'handshake-timeout', 'authentication-timeout', 'authentication-failed'],
  'ratls-exchange-closed',
])
const firstRetryMs = 250
const longestRetryMs = 5_000

export function mayRetry(error: unknown): boolean {
  return (error instanceof TransportError || error instanceof RatlsError) && retried.has(error.code)
}

/** Connects, trying again until `reconnectForMs` have passed. */
export function persistently<Connection>(
  { deployment, events }: RoleSession,
  code: 'server-unreachable',
  connect: () => Promise<Connection>,
): (signal: AbortSignal) => Promise<Connection> {
  return async (signal) => {
    const { reconnectForMs } = deployment
    const deadline = performance.now() + reconnectForMs
    for (let attempt = 1; ; attempt++) {
      try {
        signal.throwIfAborted()
        return await connect()
      } catch (error) {
        if (signal.aborted || !mayRetry(error)) throw error
        const leftMs = deadline - performance.now()
        if (leftMs <= 0) {
          throw new FederationError(code, `expected server 0 within ${reconnectForMs} ms, got none`, {
            hint: 'Start server 0 or check its address, then start this server again.',
            cause: error,
          })
        }
        const retryInMs = Math.min(firstRetryMs * 2 ** (attempt - 1), longestRetryMs, leftMs)
        events({ kind: 'connection-lost', attempt, retryInMs, error: publicError(error) })
        await sleep(retryInMs, undefined, { signal })
      }
    }
  }
}
