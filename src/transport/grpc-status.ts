// SPDX-License-Identifier: Apache-2.0
/**
 * Why a health check was refused, as gRPC trailers: `grpc-status`, `grpc-message` (percent-encoded, gRPC over HTTP/2 "Responses")
 * and our own `cloister-code`.
 */
import type { OutgoingHttpHeaders } from 'node:http2'
import type { CloseReason } from './transport-error.ts'

/** https://grpc.github.io/grpc/core/md_doc_statuscodes.html: by number. */
const statusNames = [
  'ok',
  'cancelled',
  'unknown',
  'invalid-argument',
  'deadline-exceeded',
  'not-found',
  'already-exists',
  'permission-denied',
  'resource-exhausted',
  'failed-precondition',
  'aborted',
  'out-of-range',
  'unimplemented',
  'internal',
  'unavailable',
  'data-loss',
  'unauthenticated',
] as const

export type GrpcStatus = (typeof statusNames)[number]

/** Every other reason is a precondition that failed. */
const statusOfCode: Readonly<Record<string, GrpcStatus>> = {
  'message-too-large': 'resource-exhausted',
  'message-truncated': 'invalid-argument',
  'message-malformed': 'invalid-argument',
  'method-unknown': 'unimplemented',
  'service-unknown': 'not-found',
  internal: 'internal',
}

const maxMessageCharacters = 1024

export function trailersOf(reason: CloseReason | undefined): OutgoingHttpHeaders {
  if (reason === undefined) return { 'grpc-status': '0' }
  const status = statusOfCode[reason.code] ?? 'failed-precondition'
  return {
    'grpc-status': String(statusNames.indexOf(status)),
    'grpc-message': percentEncode(reason.message.slice(0, maxMessageCharacters)),
    'cloister-code': reason.code,
  }
}

/** Space to tilde stand for themselves, save the percent sign; all else as %XX of its UTF-8. */
export function percentEncode(text: string): string {
  let encoded = ''
  for (const byte of Buffer.from(text, 'utf8')) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25
    encoded += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return encoded
}
