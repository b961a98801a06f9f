/** A server with pinned credentials, and peers that hold the right key but speak as they please. */
import { connect as connectTcp, createServer, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { onTestFinished } from 'vitest'
import { connect } from '../../src/transport/client.ts'
import type { Credentials } from '../../src/transport/connection.ts'
import type { Frame } from '../../src/transport/frame.ts'
import type { TransportLimits } from '../../src/transport/limits.ts'
import { type ListenOptions, listen } from '../../src/transport/server.ts'
import { applicationProtocol } from '../../src/transport/tls.ts'
import { frameTypes, reasonOf, wireDecoder } from '../../src/transport/wire-frames.ts'
import { createPinnedIdentity, type PinnedPeer, pinnedCredentials } from '../support/pinned.ts'
import { talk } from './echo.ts'

export const [serverIdentity, workerIdentity, strangerIdentity] = ['server', 'worker', 'stranger'].map((name) =>
  createPinnedIdentity(name, new Date()),
) as [Identity, Identity, Identity]

type Identity = ReturnType<typeof createPinnedIdentity>

const bytes = talk.input

export function serverCredentials(): Credentials<PinnedPeer> {
  return pinnedCredentials(serverIdentity, [{ name: 'worker', fingerprint: workerIdentity.fingerprint }])
}

export function workerCredentials(): Credentials<PinnedPeer> {
  return pinnedCredentials(workerIdentity, [{ name: 'server', fingerprint: serverIdentity.fingerprint }])
}

export async function startServer(options: Partial<ListenOptions<PinnedPeer, typeof bytes, typeof bytes>> = {}) {
  const refused: { code: string }[] = []
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    method: talk,
    credentials: serverCredentials(),
    onRefused: (_address, error) => refused.push(error as { code: string }),
    ...options,
  })
  onTestFinished(() => listener.close())
  return {
    listener,
    refused,
    port: Number(listener.address.split(':')[1]),
    accept: async () => (await listener.connections[Symbol.asyncIterator]().next()).value,
    refusal: async () => {
      while (refused.length === 0) await new Promise(setImmediate)
      return refused[0]!.code
    },
  }
}

export function connectWorker(port: number, limits: Partial<TransportLimits> = {}, credentials = workerCredentials()) {
  return connect({ host: '127.0.0.1', port, method: talk, credentials, limits })
}

/** TLS with the worker's key, and otherwise as asked. */
export function rawTls(port: number, options: ConnectionOptions = {}): TLSSocket {
  const { certificate, privateKey } = workerIdentity
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    cert: certificate,
    key: privateKey,
    rejectUnauthorized: false,
    ALPNProtocols: [applicationProtocol],
    ...options,
  })
  socket.on('error', () => {})
  onTestFinished(() => {
    socket.destroy()
  })
  return socket
}

/** The right key, and then whatever is written. Hears what the server says. */
export async function rawPeer(port: number) {
  const socket = rawTls(port)
  const decoder = wireDecoder(2 ** 24)
  const heard: Frame[] = []
  socket.on('data', (chunk: Buffer) => heard.push(...decoder.push(chunk)))
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  await new Promise((resolve) => socket.once('secureConnect', resolve))
  return {
    socket,
    heard,
    /** Resolves when the server has ended the connection; what it said last, if it said why. */
    reason: async () => {
      await closed
      const end = heard.findLast(({ type }) => type === frameTypes.end)
      return end && reasonOf(end.payload)
    },
  }
}

/** What is between two peers: it sees and may do everything to the bytes that pass. */
export interface Relay {
  readonly port: number
  /** Nothing passes any more, and nobody is told. */
  cut(): void
  /** Changes one byte of what the client sends next. */
  flip(): void
  reset(): void
}

export async function startRelay(port: number): Promise<Relay> {
  const sockets = new Set<Socket>()
  let passing = true
  let flipping = false
  const server = createServer((client) => {
    const upstream = connectTcp(port, '127.0.0.1')
    const pass = (from: Socket, to: Socket, spoil: boolean) => {
      sockets.add(from)
      from.on('error', () => {})
      from.on('data', (chunk: Buffer) => {
        if (spoil && flipping) {
          flipping = false
          chunk[chunk.length - 1]! ^= 1
        }
        if (passing) to.write(chunk)
      })
      from.on('close', () => passing && to.destroy())
    }
    pass(client, upstream, true)
    pass(upstream, client, false)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const end = (how: (socket: Socket) => void) => sockets.forEach(how)
  onTestFinished(() => {
    server.close()
    end((socket) => socket.destroy())
  })
  return {
    port: (server.address() as { port: number }).port,
    cut: () => {
      passing = false
    },
    flip: () => {
      flipping = true
    },
    reset: () => end((socket) => socket.resetAndDestroy()),
  }
}
