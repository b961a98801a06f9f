// SPDX-License-Identifier: Apache-2.0
/** Opens the one call of a peer: TCP, TLS, authentication, and only then HTTP/2. */

import { connect as connectHttp2, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2'
import { connect as connectTcp, type Socket } from 'node:net'
import type { DescMessage, DescMethodBiDiStreaming, MessageShape } from '@bufbuild/protobuf'
import { clientCodec, methodPath } from './codec.ts'
import type { Connection, Credentials } from './connection.ts'
import { GrpcConnection } from './grpc-connection.ts'
import { reasonOf } from './grpc-status.ts'
import { http2Options } from './http2-options.ts'
import { keepAlive } from './keepalive.ts'
import { defaultLimits, type TransportLimits } from './limits.ts'
import { parseRefusal } from './refusal.ts'
import { authenticateServer } from './tls.ts'
import { closedByPeer, TransportError } from './transport-error.ts'
import { tlsWire, type Wire } from './wire.ts'
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

/** Resolves when the server has authenticated us too and accepted the call. */
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
    return await openCall(tlsWire(raw, socket, limits), peer, method, limits)
  } catch (error) {
    raw.destroy()
    if (!signal?.aborted) throw error
    throw new TransportError('connection-closed', 'expected a connection, got the order to give up', { cause: error })
  } finally {
    signal?.removeEventListener('abort', giveUp)
  }
}

/** The call over a wire whose other end has been authenticated. */
export async function openCall<Peer, I extends DescMessage, O extends DescMessage>(
  wire: Wire,
  peer: Peer,
  method: DescMethodBiDiStreaming<I, O>,
  limits: TransportLimits,
): Promise<Connection<Peer, MessageShape<I>, MessageShape<O>>> {
  const session = connectHttp2('https://cloister', { ...http2Options(limits), createConnection: () => wire.stream })
  session.on('error', () => {}) // Whoever uses the session hears of it as its end.
  session.setLocalWindowSize(limits.sessionWindowBytes)
  keepAlive(session, wire, limits)
  try {
    const stream = session.request(callHeaders(method), { waitForTrailers: true })
    return await within(limits.authenticationTimeoutMs, 'authentication-timeout', 'an answer of the server', () => {
      return new Promise((resolve, reject) => {
        const ended = (cause?: Error) => {
          reject(new TransportError('authentication-failed', 'expected the call accepted, got its end', { cause }))
        }
        session.once('goaway', (_code, _lastStream, debugData) => {
          const refusal = parseRefusal(debugData)
          if (refusal !== undefined) reject(closedByPeer(refusal))
        })
        stream.on('error', ended)
        stream.once('close', ended)
        stream.once('response', (headers) => {
          try {
            verifyResponse(headers)
            resolve(new GrpcConnection({ side: 'client', stream, wire, peer, codec: clientCodec(method), limits }))
          } catch (error) {
            reject(error)
          }
        })
      })
    })
  } catch (error) {
    session.destroy()
    wire.destroy()
    throw error
  }
}

function callHeaders(method: DescMethodBiDiStreaming) {
  return {
    ':method': 'POST',
    ':path': methodPath(method),
    'content-type': 'application/grpc+proto',
    te: 'trailers',
  }
}

function verifyResponse(headers: IncomingHttpHeaders & IncomingHttpStatusHeader): void {
  const status = headers[':status']
  const contentType = headers['content-type'] ?? 'nothing'
  if (status !== 200 || !contentType.startsWith('application/grpc')) {
    throw new TransportError('message-malformed', `expected gRPC, got HTTP status ${status} and other content`)
  }
  const reason = 'grpc-status' in headers ? reasonOf(headers) : undefined
  if (reason !== undefined) throw closedByPeer(reason)
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
