// SPDX-License-Identifier: Apache-2.0
/**
 * From a TCP socket to an authenticated one: TLS 1.3 only, both sides with a certificate, no resumption, no early data,
 * ALPN `cloister`. The chain of a certificate proves nothing here (`rejectUnauthorized: false`): `Credentials.authenticate` decides, and
 * until it has, no message is read or written. The host owns the network and may cut, delay, replay and inject.
 */
import { constants, type X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import {
  connect,
  createSecureContext,
  createServer,
  type SecureContext,
  type SecureContextOptions,
  type Server,
  type TLSSocket,
} from 'node:tls'
import type { Credentials, TlsIdentity } from './connection.ts'
import type { TransportLimits } from './limits.ts'
import { tellRefusal } from './refusal.ts'
import { reasonFor, TransportError } from './transport-error.ts'
import { within } from './within.ts'

type Deadlines = Pick<TransportLimits, 'handshakeTimeoutMs' | 'authenticationTimeoutMs'>

export interface Authenticated<Peer> {
  readonly socket: TLSSocket
  readonly peer: Peer
  /** SHA-256 of the peer's certificate, as Node writes it. */
  readonly fingerprint: string
}

/**
 * `admit` has the last word. Whatever fails, the peer is told why if it finished the handshake, and `raw` is destroyed
 * before this rejects.
 */
export async function authenticateClient<Peer>(
  raw: Socket,
  credentials: Credentials<Peer>,
  deadlines: Deadlines,
  admit: (fingerprint: string) => void = () => {},
): Promise<Authenticated<Peer>> {
  return secure(raw, 'server', credentials, deadlines, admit, (identity, done, failed) => {
    // Never listens: it takes the socket that we accepted. One handshake at a time, so that what it tells is about this one.
    const { idleServers } = endsOf(identity)
    const server = idleServers.pop() ?? newServer(identity)
    server.once('secureConnection', (socket) => {
      server.removeAllListeners('tlsClientError')
      idleServers.push(server)
      done(socket)
    })
    // Not used again: of a handshake that was given up it may yet tell.
    server.once('tlsClientError', failed)
    server.emit('connection', raw)
  })
}

export async function authenticateServer<Peer>(
  raw: Socket,
  credentials: Credentials<Peer>,
  deadlines: Deadlines,
): Promise<Authenticated<Peer>> {
  return secure(
    raw,
    'client',
    credentials,
    deadlines,
    () => {},
    (identity, done, failed) => {
      const ends = endsOf(identity)
      ends.client ??= createSecureContext(contextOf(identity))
      const socket = connect(
        { ALPNProtocols, secureContext: ends.client, socket: raw, rejectUnauthorized: false },
        () => {
          socket.off('error', failed)
          done(socket)
        },
      )
      socket.once('error', failed)
    },
  )
}

/** Of the job's connections; provisioning has one of its own. */
export const applicationProtocol = 'cloister'
const ALPNProtocols = [applicationProtocol]

/** Reading a key and a certificate costs OpenSSL more than a handshake, so it is done once for each identity. */
interface Ends {
  client: SecureContext | undefined
  readonly idleServers: Server[]
}
const prepared = new WeakMap<object, Ends>()

function endsOf(identity: TlsIdentity): Ends {
  const known = prepared.get(identity)
  if (known !== undefined) return known
  const ends: Ends = { client: undefined, idleServers: [] }
  prepared.set(identity, ends)
  return ends
}

function newServer(identity: TlsIdentity): Server {
  return createServer({ ...contextOf(identity), ALPNProtocols, requestCert: true, rejectUnauthorized: false })
}

function contextOf({ certificate, privateKey }: TlsIdentity): SecureContextOptions {
  return {
    cert: certificate,
    key: privateKey,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    secureOptions: constants.SSL_OP_NO_TICKET,
  }
}

async function secure<Peer>(
  raw: Socket,
  side: 'client' | 'server',
  credentials: Credentials<Peer>,
  { handshakeTimeoutMs, authenticationTimeoutMs }: Deadlines,
  admit: (fingerprint: string) => void,
  handshake: (identity: TlsIdentity, done: (socket: TLSSocket) => void, failed: (cause: Error) => void) => void,
): Promise<Authenticated<Peer>> {
  let socket: TLSSocket | undefined
  try {
    const identity = credentials.identity()
    socket = await within(handshakeTimeoutMs, 'handshake-timeout', 'a TLS handshake', () => {
      return new Promise<TLSSocket>((resolve, reject) => {
        let isOver = false
        // Making an error costs its stack: none for the end of a connection whose handshake is long done.
        const failed = (cause?: Error) => {
          if (!isOver) reject(handshakeFailure(cause))
        }
        raw.once('close', () => failed())
        handshake(
          identity,
          (socket) => {
            isOver = true
            socket.on('error', () => raw.destroy()) // Node does not, when a record does not decrypt.
            resolve(socket)
          },
          failed,
        )
      })
    })
    const certificate = verifySession(socket)
    const secured = { socket, certificate, side, identity }
    const lost = () =>
      new TransportError('authentication-failed', 'expected authentication, got the end of the connection')
    const peer = await within(authenticationTimeoutMs, 'authentication-timeout', 'authentication', (signal, abort) => {
      const abandon = () => abort(lost())
      secured.socket.once('close', abandon)
      return credentials.authenticate(secured, signal).finally(() => secured.socket.off('close', abandon))
    })
    if (socket.destroyed) throw lost()
    admit(certificate.fingerprint256)
    return { socket, peer, fingerprint: certificate.fingerprint256 }
  } catch (error) {
    if (side === 'server' && socket !== undefined) await tellRefusal(socket, reasonFor(error))
    raw.destroy()
    throw error
  }
}

/** What TLS has to have given before anything else is believed. */
export function verifySession(socket: TLSSocket): X509Certificate {
  if (socket.getProtocol() !== 'TLSv1.3' || socket.alpnProtocol !== applicationProtocol) {
    const got = `${socket.getProtocol()} with ${socket.alpnProtocol || 'no protocol'}`
    throw new TransportError('handshake-failed', `expected TLSv1.3 with ${applicationProtocol}, got ${got}`)
  }
  if (socket.isSessionReused()) {
    throw new TransportError('session-resumed', 'expected a full handshake, got a resumed session')
  }
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) {
    throw new TransportError('certificate-missing', 'expected a certificate of the peer, got none')
  }
  return certificate
}

/** A peer that dies in the middle of a handshake may come back; one that does not speak our TLS is another matter. */
const breaks: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT'])

function handshakeFailure(cause: Error | undefined): TransportError {
  const got = cause === undefined ? 'the end of the connection' : codeOf(cause)
  const code = cause === undefined || breaks.has(got) ? 'connection-lost' : 'handshake-failed'
  return new TransportError(code, `expected a TLS 1.3 handshake, got ${got}`, { cause })
}

/** OpenSSL's or the system's own code; its messages may quote the peer. */
function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
