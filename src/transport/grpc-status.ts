// SPDX-License-Identifier: Apache-2.0
/**
 * Why a call ended, as gRPC trailers: `grpc-status`, `grpc-message` (percent-encoded, gRPC over HTTP/2 "Responses") and our own
 * `cloister-code`. What comes from the peer is cut and cleaned before it may reach a log.
 */
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http2'
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

/** Transport codes that have a status of their own in gRPC; every other reason is a precondition that failed. */
const statusOfCode: Readonly<Record<string, GrpcStatus>> = {
  'message-too-large': 'resource-exhausted',
  'connection-limit': 'resource-exhausted',
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

/** `undefined` when the peer ended without complaint. */
export function reasonOf(trailers: IncomingHttpHeaders): CloseReason | undefined {
  const status = trailers['grpc-status']
  if (status === '0') return undefined
  const name = typeof status === 'string' && /^[0-9]{1,2}$/.test(status) ? statusNames[Number(status)] : undefined
  const code = trailers['cloister-code']
  const message = trailers['grpc-message']
  return cleanReason(
    typeof code === 'string' && /^[a-z][a-z0-9-]{0,63}$/.test(code) ? code : `grpc-${name ?? 'unknown'}`,
    typeof message === 'string' ? percentDecode(message) : '',
  )
}

/** One line without control characters, so that a peer cannot forge lines of a log or drive a terminal. */
export function cleanReason(code: string, message = ''): CloseReason {
  return { code, message: message.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd').slice(0, maxMessageCharacters) }
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

/** As the specification asks, what is not valid percent-encoding stands as it came. */
export function percentDecode(text: string): string {
  const bytes: number[] = []
  for (let index = 0; index < text.length; index++) {
    const hex = text[index] === '%' ? text.slice(index + 1, index + 3) : ''
    if (/^[0-9A-Fa-f]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16))
      index += 2
    } else {
      bytes.push(...Buffer.from(text[index]!, 'utf8'))
    }
  }
  return Buffer.from(bytes).toString('utf8')
}
