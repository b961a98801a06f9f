// SPDX-License-Identifier: Apache-2.0
/** gRPC over HTTP/2 as far as health checks need it: judging a request's headers, refusing a call. */
import type { Http2Stream, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2'
import { trailersOf } from './grpc-status.ts'
import type { CloseReason } from './transport-error.ts'

export const responseHeaders = { ':status': 200, 'content-type': 'application/grpc+proto' }

/** The peer has taken the stream back, maybe in the packet that brought it: answering it throws. */
export function isGone(stream: Http2Stream): boolean {
  return stream.destroyed || stream.closed
}

/** The method's path; undefined when this is no gRPC request, which then has been answered, or is gone already. */
export function verifyRequest(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): string | undefined {
  if (isGone(stream)) return undefined
  const contentType = headers['content-type']
  if (headers[':method'] !== 'POST' || !/^application\/grpc(\+proto)?$/.test(contentType ?? '')) {
    stream.respond({ ':status': 415 }, { endStream: true })
    return undefined
  }
  return String(headers[':path'])
}

/** Headers and trailers in one ("Trailers-Only"). */
export function refuseCall(stream: ServerHttp2Stream, reason: CloseReason): void {
  if (isGone(stream) || stream.headersSent) return
  stream.respond({ ...responseHeaders, ...trailersOf(reason) }, { endStream: true })
}

export function refuseUnknownMethod(stream: ServerHttp2Stream): void {
  refuseCall(stream, { code: 'method-unknown', message: 'expected a method that is served here, got another' })
}
