// SPDX-License-Identifier: Apache-2.0
/**
 * Accepts peers: TCP, TLS, authentication, and only then messages. Until a peer has been authenticated it can hold a socket for
 * a bounded time, and nothing else.
 */

import { createServer, type Socket } from 'node:net'
import type { DescMessage, DescMethodBiDiStreaming, MessageShape } from '@bufbuild/protobuf'
import { AsyncQueue } from './async-queue.ts'
import { bind } from './bind.ts'
import { serverCodec } from './codec.ts'
import type { Connection, Credentials, Listener } from './connection.ts'
import { FramedConnection } from './framed-connection.ts'
import { defaultLimits, type TransportLimits } from './limits.ts'
import { type Authenticated, authenticateClient } from './tls.ts'
import { TransportError } from './transport-error.ts'

export interface ListenOptions<Peer, I extends DescMessage, O extends DescMessage> {
  readonly host: string
  /** 0 for any. */
  readonly port: number
  readonly credentials: Credentials<Peer>
  readonly method: DescMethodBiDiStreaming<I, O>
  readonly limits?: Partial<TransportLimits>
  /** Told of each peer that was turned away before it had a connection. */
  readonly onRefused?: (address: string, error: unknown) => void
}

export async function listen<Peer, I extends DescMessage, O extends DescMessage>(
  options: ListenOptions<Peer, I, O>,
): Promise<Listener<Peer, MessageShape<O>, MessageShape<I>>> {
  const server = new FramedServer(options)
  await server.bind(options.host, options.port)
  return server
}

class FramedServer<Peer, I extends DescMessage, O extends DescMessage>
  implements Listener<Peer, MessageShape<O>, MessageShape<I>>
{
  address = ''
  readonly #options: ListenOptions<Peer, I, O>
  readonly #limits: TransportLimits
  readonly #accepted = new AsyncQueue<Connection<Peer, MessageShape<O>, MessageShape<I>>>()
  readonly #server = createServer({ noDelay: true, keepAlive: true }, (raw) => void this.#admit(raw))
  readonly #handshaking = new Set<Socket>()
  /** Authenticated, with the fingerprint of the peer. */
  readonly #connections = new Map<FramedConnection<Peer, MessageShape<O>, MessageShape<I>>, string>()

  constructor(options: ListenOptions<Peer, I, O>) {
    this.#options = options
    this.#limits = { ...defaultLimits, ...options.limits }
  }

  get connections(): AsyncIterable<Connection<Peer, MessageShape<O>, MessageShape<I>>> {
    return this.#accepted
  }

  async bind(host: string, port: number): Promise<void> {
    this.address = await bind(this.#server, host, port)
    this.#server.on('error', () => {}) // A failed accept (no more descriptors) must not end the process.
  }

  async close(): Promise<void> {
    for (const connection of this.#accepted.abort()) connection.destroy()
    for (const raw of this.#handshaking) raw.destroy()
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await closeConnections(this.#connections.keys(), this.#limits.closeTimeoutMs)
    await stopped
  }

  async #admit(raw: Socket): Promise<void> {
    const address = `${raw.remoteAddress}:${raw.remotePort}`
    raw.on('error', () => {}) // 'close' follows.
    try {
      if (this.#handshaking.size >= this.#limits.maxHandshakes) {
        throw new TransportError(
          'connection-limit',
          `expected at most ${this.#limits.maxHandshakes} handshakes at a time`,
        )
      }
      this.#handshaking.add(raw)
      const authenticated = await authenticateClient(raw, this.#options.credentials, this.#limits, (fingerprint) =>
        this.#assertRoom(fingerprint),
      )
      this.#serve(raw, authenticated)
    } catch (error) {
      raw.destroy()
      this.#options.onRefused?.(address, error)
    } finally {
      this.#handshaking.delete(raw)
    }
  }

  #assertRoom(fingerprint: string): void {
    const { maxConnections, maxConnectionsPerCertificate } = this.#limits
    const ofPeer = [...this.#connections.values()].filter((other) => other === fingerprint).length
    if (this.#connections.size >= maxConnections || ofPeer >= maxConnectionsPerCertificate) {
      const got = `${this.#connections.size}, ${ofPeer} with this certificate`
      const bounds = `${maxConnections} connections, ${maxConnectionsPerCertificate} of one certificate`
      throw new TransportError('connection-limit', `expected fewer than ${bounds}, got ${got}`)
    }
  }

  #serve(raw: Socket, { socket, peer, fingerprint }: Authenticated<Peer>): void {
    const codec = serverCodec(this.#options.method)
    const connection = new FramedConnection({ socket, counter: raw, peer, codec, limits: this.#limits })
    this.#connections.set(connection, fingerprint)
    void connection.closed.then(() => {
      this.#connections.delete(connection)
      raw.destroy()
    })
    if (this.#accepted.ended) connection.destroy()
    else this.#accepted.push(connection)
  }
}

/** Lets them end, no longer than `timeoutMs`. */
export async function closeConnections(
  connections: Iterable<{ readonly closed: Promise<void>; destroy(): void }>,
  timeoutMs: number,
): Promise<void> {
  const open = [...connections]
  const deadline = setTimeout(() => {
    for (const connection of open) connection.destroy()
  }, timeoutMs)
  await Promise.all(open.map(({ closed }) => closed))
  clearTimeout(deadline)
}
