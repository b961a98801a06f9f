// SPDX-License-Identifier: Apache-2.0
/**
 * The transport without a network, for tests and embedding: the same gRPC between two ends in one process, without TCP and
 * TLS. Messages are encoded and framed as ever, so both ends share no memory and meet the same bounds.
 */

import type { ServerHttp2Session } from 'node:http2'
import type { DescMessage, DescMethodBiDiStreaming, MessageShape } from '@bufbuild/protobuf'
import { AsyncQueue } from './async-queue.ts'
import type { Connection, Listener } from './connection.ts'
import { openCall } from './grpc-client.ts'
import { closeSessions, serveCall } from './grpc-serve.ts'
import { defaultLimits, type TransportLimits } from './limits.ts'
import { tellRefusal } from './refusal.ts'
import { reasonFor, TransportError } from './transport-error.ts'
import { memoryWires } from './wire.ts'
import { within } from './within.ts'

/** What `Credentials.authenticate` is to TLS: judges whom the other end claims to be; throws to refuse. */
export type Authenticate<Peer> = (claimed: Peer, signal: AbortSignal) => Promise<Peer>

export interface MemoryEndOptions<Peer> {
  /** As whom the other end sees this one. */
  readonly identity: Peer
  readonly authenticate: Authenticate<Peer>
  readonly limits?: Partial<TransportLimits>
}

export interface MemoryListenOptions<Peer, I extends DescMessage, O extends DescMessage>
  extends MemoryEndOptions<Peer> {
  readonly method: DescMethodBiDiStreaming<I, O>
  readonly onRefused?: (address: string, error: unknown) => void
}

export interface MemoryListener<Peer, I extends DescMessage, O extends DescMessage>
  extends Listener<Peer, MessageShape<O>, MessageShape<I>> {
  connect(client: MemoryEndOptions<Peer>): Promise<Connection<Peer, MessageShape<I>, MessageShape<O>>>
}

export function listenInMemory<Peer, I extends DescMessage, O extends DescMessage>(
  options: MemoryListenOptions<Peer, I, O>,
): MemoryListener<Peer, I, O> {
  const { method } = options
  const address = 'memory:0'
  const serverLimits = { ...defaultLimits, ...options.limits }
  const accepted = new AsyncQueue<Connection<Peer, MessageShape<O>, MessageShape<I>>>()
  const sessions = new Set<ServerHttp2Session>()

  const connect = async (client: MemoryEndOptions<Peer>) => {
    const limits = { ...defaultLimits, ...client.limits }
    if (accepted.ended) throw new TransportError('connect-failed', 'expected a listener, got a closed one')
    const server = await judge(client.authenticate, options.identity, limits)
    const [clientWire, wire] = memoryWires([limits, serverLimits])
    judge(options.authenticate, client.identity, serverLimits).then(
      (peer) => {
        if (wire.destroyed) return
        const session = serveCall({ wire, peer, method, health: undefined, limits: serverLimits }, (connection) => {
          if (accepted.ended) connection.destroy()
          else accepted.push(connection)
        })
        sessions.add(session)
        session.once('close', () => sessions.delete(session))
      },
      async (error: unknown) => {
        options.onRefused?.(address, error)
        await tellRefusal(wire.stream, reasonFor(error))
        wire.destroy()
      },
    )
    return openCall(clientWire, server, method, limits)
  }

  const close = async () => {
    for (const connection of accepted.abort()) connection.destroy()
    await closeSessions(sessions, serverLimits.closeTimeoutMs)
  }

  return { address, connections: accepted, connect, close }
}

function judge<Peer>(authenticate: Authenticate<Peer>, claimed: Peer, limits: TransportLimits): Promise<Peer> {
  return within(limits.authenticationTimeoutMs, 'authentication-timeout', 'authentication', (signal) =>
    authenticate(claimed, signal),
  )
}
