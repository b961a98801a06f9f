// SPDX-License-Identifier: Apache-2.0
/** Errors of the transport. What a peer sends in a reason is its claim: shown, never trusted. */
import { CodedError } from '../errors.ts'

export type TransportErrorCode = keyof typeof hints

const hints = {
  'address-unusable': 'Choose another address or port, or end what uses it; port 0 takes a free one.',
  'connect-failed': 'Check that the server runs, that address and port are right and that no firewall lies between.',
  'handshake-failed':
    'Both sides must run the same version of Cloister over TLS 1.3; look for a proxy that ends TLS in between.',
  'handshake-timeout': 'Look for an overloaded host, packet loss, or a peer that does not speak TLS on this port.',
  'certificate-missing': 'The peer must present a client certificate: authentication is mutual.',
  'session-resumed': 'The peer must make a full TLS handshake for each connection: resumption skips its certificate.',
  'authentication-timeout':
    'The peer connected but did not prove itself in time: look at its log and at its collateral service.',
  'authentication-failed': 'The peer broke off while it was being authenticated: look at its log.',
  'connection-limit': 'Wait for other connections of the same peer to end.',
  'message-too-large':
    'The peer does not keep to the protocol, which sends tensors in slices: compare the versions of both sides.',
  'message-truncated': 'The peer ended in the middle of a message: look at its log.',
  'message-malformed': 'The peer does not speak this protocol: compare the versions of both sides.',
  'closed-by-peer': 'The peer says why it ended the connection; act on its reason.',
  'connection-lost':
    'The peer died or the network broke; a worker reconnects by itself for the time the deployment states.',
  'connection-closed': 'This side has closed the connection already: open a new one.',
} as const

/** What one side tells the other when it ends a connection. */
export interface CloseReason {
  readonly code: string
  readonly message: string
}

/** What a peer may know of an error of ours; of a bug, only that there is one. */
export function reasonFor(error: unknown): CloseReason {
  if (error instanceof CodedError) return { code: error.code, message: error.message }
  return { code: 'internal', message: 'expected no bug on the other side, got one: see its log' }
}

export class TransportError extends CodedError<TransportErrorCode> {
  /** The peer's own words, when the code is `closed-by-peer`. */
  readonly peerReason: CloseReason | undefined

  constructor(code: TransportErrorCode, message: string, options: { cause?: unknown; peerReason?: CloseReason } = {}) {
    super(code, message, 'cause' in options ? { hint: hints[code], cause: options.cause } : { hint: hints[code] })
    this.peerReason = options.peerReason
  }
}

export function closedByPeer(reason: CloseReason): TransportError {
  const message = `expected an open connection, got its end by the peer: ${reason.code}: ${reason.message}`
  return new TransportError('closed-by-peer', message, { peerReason: reason })
}
