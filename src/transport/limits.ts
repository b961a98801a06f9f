// SPDX-License-Identifier: Apache-2.0
/**
 * Every bound of the transport, with the reason for its default. All are availability bounds: what a hostile peer can
 * make us hold or wait for. None decides whom we trust.
 */
export interface TransportLimits {
  /** One message, checked before memory for it is taken. */
  readonly maxMessageBytes: number
  /** `send` waits while more than this is queued: enough that encryption and the network never idle. */
  readonly sendBufferBytes: number
  /** What the peer may send before it has been taken from `incoming`. Smaller windows stall long fat links. */
  readonly windowBytes: number
  /** TCP connect and TLS handshake, each; measured from its start, not from the last byte. */
  readonly handshakeTimeoutMs: number
  /** `Credentials.authenticate`: may fetch collateral, so longer than a handshake. */
  readonly authenticationTimeoutMs: number
  /** Accepted sockets that have not been authenticated yet; more are reset. Each costs a TLS state and one signature. */
  readonly maxHandshakes: number
  /** Authenticated connections in all; and for one certificate, so that one peer cannot take every place. */
  readonly maxConnections: number
  readonly maxConnectionsPerCertificate: number
  /**
   * Who has sent nothing for an interval sends a heartbeat, and gives up a peer that is silent for an interval and the timeout: a cut
   * cable is noticed after at most two intervals and a timeout, which must outlast the longest pause of the peer's event loop (a step of the JavaScript engine).
   */
  readonly keepaliveIntervalMs: number
  readonly keepaliveTimeoutMs: number
  /** After `close`, how long the peer may take to end its own half. */
  readonly closeTimeoutMs: number
}

export const defaultLimits: TransportLimits = {
  maxMessageBytes: 8 * 2 ** 20,
  sendBufferBytes: 4 * 2 ** 20,
  windowBytes: 16 * 2 ** 20,
  handshakeTimeoutMs: 10_000,
  authenticationTimeoutMs: 30_000,
  maxHandshakes: 128,
  maxConnections: 1024,
  maxConnectionsPerCertificate: 4,
  keepaliveIntervalMs: 15_000,
  keepaliveTimeoutMs: 45_000,
  closeTimeoutMs: 10_000,
}
