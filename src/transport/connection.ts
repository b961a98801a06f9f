// SPDX-License-Identifier: Apache-2.0
/**
 * What federation needs of a network, generic in the peer that was authenticated. The gRPC transport and its in-memory
 * twin implement it and pass the same contract suite (test/contracts/transport.ts).
 */
import type { TLSSocket } from 'node:tls'

/** Long-lived, ordered, reliable messages between two authenticated peers. */
export interface Connection<Peer, Outgoing, Incoming> {
  readonly peer: Peer
  /** Resolves when the message is handed to the network and more may be sent: waiting for it is the back-pressure. */
  send(message: Outgoing): Promise<void>
  /** Ends when the peer finishes; throws TransportError when the connection breaks or a message is out of bounds. */
  readonly incoming: AsyncIterable<Incoming>
  /** Flushes and ends our half, telling the peer why when there is a reason. */
  close(reason?: { code: string; message: string }): Promise<void>
  /** Aborts at once. */
  destroy(cause?: Error): void
  readonly bytesSent: number
  readonly bytesReceived: number
}

export interface Listener<Peer, Outgoing, Incoming> {
  /** host:port as bound. */
  readonly address: string
  readonly connections: AsyncIterable<Connection<Peer, Outgoing, Incoming>>
  close(): Promise<void>
}

/**
 * Who we are and whom we accept. `authenticate` runs on the bare TLS socket, before any HTTP/2 frame is read or written,
 * and may exchange bytes of its own; it throws to refuse. TLS is 1.3 only, mutual, without resumption.
 */
export interface Credentials<Peer> {
  /** Read for every handshake, so that certificates rotate without dropping connections. PEM. */
  identity(): { readonly certificate: string; readonly privateKey: string }
  authenticate(socket: TLSSocket, side: 'client' | 'server', signal: AbortSignal): Promise<Peer>
}
