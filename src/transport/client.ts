// SPDX-License-Identifier: Apache-2.0
/** Opens a connection: TCP, TLS, authentication, and only then messages. */

import { connect as connectTcp, type Socket } from 'node:net'
import type { DescMessage, DescMethodBiDiStreaming, MessageShape } from '@bufbuild/protobuf'
import { clientCodec } from './codec.ts'
import type { Connection, Credentials } from './connection.ts'
import { FramedConnection } from './framed-connection.ts'
import { defaultLimits, type TransportLimits } from './limits.ts'
import { authenticateServer } from './tls.ts'
import { TransportError } from './transport-error.ts'
import { within } from './within.ts'

export interface ConnectOptions<Peer, I extends DescMessage, O extends DescMessage> {
  readonly host: string
  readonly port: number
  readonly credentials: Credentials<Peer>
  readonly method: DescMethodBiDiStreaming<I, O>
  readonly limits?: Partial<TransportLimits>
  /** Gives the attempt up; a connection once made is its owner's to end. */
  readonly signal?: AbortSignal
}

/** Resolves when the server has authenticated us too. */
export async function connect<Peer, I extends DescMessage, O extends DescMessage>(
  options: ConnectOptions<Peer, I, O>,
): Promise<Connection<Peer, MessageShape<I>, MessageShape<O>>> {
  const { host, port, credentials, method, signal } = options
  const limits = { ...defaultLimits, ...options.limits }
  const raw = connectTcp({ host, port, noDelay: true, keepAlive: true })
  const giveUp = () => raw.destroy(new Error('given up'))
  signal?.addEventListener('abort', giveUp)
  try {
    signal?.throwIfAborted()
    await opened(raw, `${host}:${port}`, limits.handshakeTimeoutMs)
    const { socket, peer } = await authenticateServer(raw, credentials, limits)
    const connection = new FramedConnection({ socket, counter: raw, peer, codec: clientCodec(method), limits })
    await connection.accepted()
    return connection
  } catch (error) {
    raw.destroy()
    if (!signal?.aborted) throw error
    throw new TransportError('connection-closed', 'expected a connection, got the order to give up', { cause: error })
  } finally {
    signal?.removeEventListener('abort', giveUp)
  }
}

function opened(raw: Socket, address: string, timeoutMs: number): Promise<void> {
  return within(timeoutMs, 'connect-failed', `a TCP connection to ${address}`, () => {
    return new Promise((resolve, reject) => {
      raw.once('connect', resolve)
      raw.on('error', (cause) => {
        const got = 'code' in cause ? cause.code : cause.name
        reject(new TransportError('connect-failed', `expected a listener at ${address}, got ${got}`, { cause }))
      })
    })
  })
}
