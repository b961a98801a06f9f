// SPDX-License-Identifier: Apache-2.0
/**
 * What federation needs of a network, generic in the peer that was authenticated. The transport over TLS and its in-memory
 * twin implement it and pass the same contract suite (test/contracts/transport.ts).
 */
import type { X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'

/** Long-lived, ordered, reliable messages between two authenticated peers. */
export interface Connection<Peer, Outgoing, Incoming> {
  readonly peer: Peer
  /** Resolves when the message is handed to the network and more may be sent: waiting for it is the back-pressure. */
  send(message: Outgoing): Promise<void>
  /**
   * Ends when the peer finishes; throws TransportError when the connection breaks or a message is out of bounds. For one
   * consumer, who may leave the loop and begin another: it goes on with the next message.
   */
  readonly incoming: AsyncIterable<Incoming>
  /**
   * Flushes and ends our half, telling the peer why when there is a reason. The peer may go on sending for a bounded time;
   * the end of `incoming` is the proof that it has taken everything.
   */
  close(reason?: { code: string; message: string }): Promise<void>
  /** Aborts at once. */
  destroy(cause?: Error): void
  /** Bytes on the wire: messages, framing and encryption. */
  readonly bytesSent: number
  readonly bytesReceived: number
}

/** Of what a socket carries. */
export interface ByteCounter {
  readonly bytesWritten: number
  readonly bytesRead: number
}

export interface Listener<Peer, Outgoing, Incoming> {
  /** host:port as bound. */
  readonly address: string
  readonly connections: AsyncIterable<Connection<Peer, Outgoing, Incoming>>
  close(): Promise<void>
}

/** A finished TLS handshake: proof that the peer holds the key of `certificate`, and of nothing else. */
export interface Handshake {
  readonly socket: TLSSocket
  /** The peer's. Asking the socket again is a trap: on a client, Node's getPeerX509Certificate() answers only once. */
  readonly certificate: X509Certificate
  /** Ours. */
  readonly side: 'client' | 'server'
  /** What we showed in this handshake: the very object that `identity()` gave, which may have been renewed since. */
  readonly identity: TlsIdentity
}

/** PEM. */
export interface TlsIdentity {
  readonly certificate: string
  readonly privateKey: string
}

/**
 * Who we are and whom we accept. `authenticate` runs on the bare TLS socket, before any message is read or written,
 * and may exchange bytes of its own; it throws to refuse. It leaves no listener behind and nothing read that it did not
 * use (`unshift`): messages begin with the next byte. TLS is 1.3 only, mutual, without resumption.
 */
export interface Credentials<Peer> {
  /**
   * Read for every handshake, so that certificates rotate without dropping connections. The same object for as long as
   * nothing has changed: what TLS needs of it is prepared once for each.
   */
  identity(): TlsIdentity
  authenticate(handshake: Handshake, signal: AbortSignal): Promise<Peer>
}
