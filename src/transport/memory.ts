// SPDX-License-Identifier: Apache-2.0
/**
 * The transport without a network, for tests and embedding: the same frames between two ends in one process, without TCP and
 * TLS. Messages are encoded as ever, so both ends share no memory and meet the same bounds.
 */

import { Duplex } from 'node:stream'
import type { DescMessage, DescMethodBiDiStreaming, MessageShape } from '@bufbuild/protobuf'
import { AsyncQueue } from './async-queue.ts'
import { clientCodec, serverCodec } from './codec.ts'
import type { ByteCounter, Connection, Listener } from './connection.ts'
import { FramedConnection } from './framed-connection.ts'
import { defaultLimits, type TransportLimits } from './limits.ts'
import { tellRefusal } from './refusal.ts'
import { closeConnections } from './server.ts'
import { reasonFor, TransportError } from './transport-error.ts'
import { within } from './within.ts'

/** What `Credentials.authenticate` is to TLS: judges whom the other end claims to be; throws to refuse. */
export type Authenticate<Peer> = (claimed: Peer, signal: AbortSignal) => Promise<Peer>

export interface MemoryEndOptions<Peer> {
  /** As whom the other end sees this one. */
  readonly identity: Peer
  readonly authenticate: Authenticate<Peer>
  readonly limits?: Partial<TransportLimits>
}

export interface MemoryListenOptions<Peer, I extends DescMessage, O extends DescMessage>
  extends MemoryEndOptions<Peer> {
  readonly method: DescMethodBiDiStreaming<I, O>
  readonly onRefused?: (address: string, error: unknown) => void
}

export interface MemoryListener<Peer, I extends DescMessage, O extends DescMessage>
  extends Listener<Peer, MessageShape<O>, MessageShape<I>> {
  connect(client: MemoryEndOptions<Peer>): Promise<Connection<Peer, MessageShape<I>, MessageShape<O>>>
}

export function listenInMemory<Peer, I extends DescMessage, O extends DescMessage>(
  options: MemoryListenOptions<Peer, I, O>,
): MemoryListener<Peer, I, O> {
  const { method } = options
  const address = 'memory:0'
  const serverLimits = { ...defaultLimits, ...options.limits }
  const accepted = new AsyncQueue<Connection<Peer, MessageShape<O>, MessageShape<I>>>()
  const open = new Set<FramedConnection<Peer, MessageShape<O>, MessageShape<I>>>()

  const connect = async (client: MemoryEndOptions<Peer>) => {
    const limits = { ...defaultLimits, ...client.limits }
    if (accepted.ended) throw new TransportError('connect-failed', 'expected a listener, got a closed one')
    const server = await judge(client.authenticate, options.identity, limits)
    const [near, far] = pipe()
    judge(options.authenticate, client.identity, serverLimits).then(
      (peer) => {
        if (far.socket.destroyed) return
        const connection = new FramedConnection({ ...far, peer, codec: serverCodec(method), limits: serverLimits })
        open.add(connection)
        void connection.closed.then(() => open.delete(connection))
        if (accepted.ended) connection.destroy()
        else accepted.push(connection)
      },
      async (error: unknown) => {
        options.onRefused?.(address, error)
        await tellRefusal(far.socket, reasonFor(error))
        far.socket.destroy()
      },
    )
    const connection = new FramedConnection({ ...near, peer: server, codec: clientCodec(method), limits })
    await connection.accepted()
    return connection
  }

  const close = async () => {
    for (const connection of accepted.abort()) connection.destroy()
    await closeConnections(open, serverLimits.closeTimeoutMs)
  }

  return { address, connections: accepted, connect, close }
}

function judge<Peer>(authenticate: Authenticate<Peer>, claimed: Peer, limits: TransportLimits): Promise<Peer> {
  return within(limits.authenticationTimeoutMs, 'authentication-timeout', 'authentication', (signal) =>
    authenticate(claimed, signal),
  )
}

interface PipeEnd {
  readonly socket: Duplex
  readonly counter: ByteCounter
}

/** Two ends in one process: what one is given, the other gives. */
function pipe(): readonly [PipeEnd, PipeEnd] {
  const sentBytes = [0, 0]
  /** By end: it asked for a chunk and there was none; or there is one and it has not asked. */
  const wanting = [false, false]
  const held: [(() => void)?, (() => void)?] = []
  const ends = [0, 1].map((mine) => {
    const other = 1 - mine
    return new Duplex({
      read: () => {
        const give = held[mine]
        held[mine] = undefined
        wanting[mine] = give === undefined
        give?.()
      },
      write: (chunk: Buffer, _encoding, done) => {
        sentBytes[mine]! += chunk.length
        const give = () => {
          ends[other]!.push(chunk)
          done()
        }
        if (wanting[other]) {
          wanting[other] = false
          give()
        } else {
          held[other] = give
        }
      },
      final: (done) => {
        ends[other]!.push(null)
        done()
      },
      destroy: (error, done) => {
        setImmediate(() => ends[other]!.destroy())
        done(error)
      },
    })
  })
  const end = (mine: number): PipeEnd => ({
    socket: ends[mine]!,
    counter: {
      get bytesWritten() {
        return sentBytes[mine]!
      },
      get bytesRead() {
        return sentBytes[1 - mine]!
      },
    },
  })
  return [end(0), end(1)]
}
