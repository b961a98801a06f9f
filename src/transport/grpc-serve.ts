// SPDX-License-Identifier: Apache-2.0
/** The server's end of a wire whose other end has been authenticated: one call, and health checks beside it. */

import { performServerHandshake, type ServerHttp2Session } from 'node:http2'
import type { DescMessage, DescMethodBiDiStreaming, MessageShape } from '@bufbuild/protobuf'
import { methodPath, serverCodec } from './codec.ts'
import type { Connection } from './connection.ts'
import { GrpcConnection } from './grpc-connection.ts'
import { refuseCall, refuseUnknownMethod, responseHeaders, verifyRequest } from './grpc-request.ts'
import { answerHealth, type Health } from './health.ts'
import { http2Options } from './http2-options.ts'
import { keepAlive } from './keepalive.ts'
import type { TransportLimits } from './limits.ts'
import type { Wire } from './wire.ts'

export interface ServeOptions<Peer, I extends DescMessage, O extends DescMessage> {
  readonly wire: Wire
  readonly peer: Peer
  readonly method: DescMethodBiDiStreaming<I, O>
  readonly health: Health | undefined
  readonly limits: TransportLimits
}

/** The call and health checks beside it. */
const maxStreams = 8

export function serveCall<Peer, I extends DescMessage, O extends DescMessage>(
  { wire, peer, method, health, limits }: ServeOptions<Peer, I, O>,
  onCall: (connection: Connection<Peer, MessageShape<O>, MessageShape<I>>) => void,
): ServerHttp2Session {
  const session = performServerHandshake(wire.stream, http2Options(limits, maxStreams))
  session.on('error', () => {}) // Whoever uses the session hears of it as its end.
  session.setLocalWindowSize(limits.sessionWindowBytes)
  keepAlive(session, wire, limits)
  let called = false
  session.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    const path = verifyRequest(stream, headers)
    if (path === undefined) return
    if (path === methodPath(method)) {
      if (called) {
        refuseCall(stream, { code: 'connection-limit', message: 'expected one call a connection, got another' })
        return
      }
      called = true
      stream.respond(responseHeaders, { waitForTrailers: true })
      onCall(new GrpcConnection({ side: 'server', stream, wire, peer, codec: serverCodec(method), limits }))
    } else if (health === undefined || !answerHealth(stream, path, health)) {
      refuseUnknownMethod(stream)
    }
  })
  return session
}

/** Lets the calls under way end, no longer than `timeoutMs`. */
export async function closeSessions(sessions: Iterable<ServerHttp2Session>, timeoutMs: number): Promise<void> {
  const closing = [...sessions].map((session) => {
    return new Promise<void>((resolve) => {
      const deadline = setTimeout(() => session.destroy(), timeoutMs)
      session.once('close', () => {
        clearTimeout(deadline)
        resolve()
      })
      session.close()
    })
  })
  await Promise.all(closing)
}
