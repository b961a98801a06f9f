// SPDX-License-Identifier: Apache-2.0
/**
 * Where owners reach an enclave that waits for keys: a port of its own, TLS 1.3, the enclave's RA-TLS certificate, no
 * certificate of the owner. Strangers can hold a socket for a bounded time and nothing else.
 */
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { type PublicError, publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import type { AttestedIdentity } from '../ratls/certificate.ts'
import { requireChannel } from '../ratls/credentials.ts'
import { withDeadline } from '../ratls/deadline.ts'
import { KeysError } from './keys-error.ts'
import type { ProvisionedKeys } from './provisioned-keys.ts'
import { type ProvisionedRole, provisioningProtocol, receiveKey } from './provisioning-exchange.ts'

export interface ProvisioningOptions {
  readonly host: string
  readonly port: number
  /** Read for every connection: certificates are renewed. */
  readonly credentials: { identity(): AttestedIdentity }
  readonly quote: (reportData: Uint8Array) => Promise<Uint8Array>
  readonly role: ProvisionedRole
  readonly jobDigest: Uint8Array
  readonly keys: ProvisionedKeys
  readonly report: EventSink
}

export interface ProvisioningListener {
  /** host:port as bound. */
  readonly address: string
  close(): Promise<void>
}

/** From TCP to the last frame. */
const exchangeTimeoutMs = 30_000
const maxProvisioningConnections = 16

export async function listenForKeys(options: ProvisioningOptions): Promise<ProvisioningListener> {
  const sockets = new Set<Socket>()
  const closing = new AbortController()
  const server = createServer((raw) => {
    sockets.add(raw)
    raw.once('close', () => sockets.delete(raw))
    raw.on('error', () => raw.destroy())
    const address = `${raw.remoteAddress}:${raw.remotePort}`
    const refused = (error: PublicError): void => options.report({ kind: 'peer-refused', address, error })
    serve(raw, options, closing.signal)
      .catch((error) => refused(publicError(error)))
      .finally(() => raw.destroy())
  })
  server.maxConnections = maxProvisioningConnections
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const { host, port } = options
      const message = `expected to listen for keys on ${host}:${port}, got: ${cause.message}`
      const hint = 'End what uses the port, or choose another for provisioning.'
      reject(new KeysError('provision-address-unusable', message, { hint, cause }))
    })
    server.listen(options.port, options.host, resolve)
  })
  const { address, family, port } = server.address() as AddressInfo
  return {
    address: family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`,
    async close() {
      closing.abort()
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function serve(raw: Socket, options: ProvisioningOptions, closing: AbortSignal): Promise<void> {
  const { role, jobDigest, quote, keys } = options
  const identity = options.credentials.identity()
  const deadline = withDeadline(closing, exchangeTimeoutMs)
  const cut = (): void => void raw.destroy()
  deadline.signal.addEventListener('abort', cut)
  try {
    const socket = await handshake(raw, identity)
    // From here on the exchange ends by the deadline itself, and says why.
    deadline.signal.removeEventListener('abort', cut)
    requireChannel(socket)
    await receiveKey({
      ...{ socket, role, jobDigest, quote },
      publicKeyHash: identity.publicKeyHash,
      isOwner: (publicKey) => keys.isOwner(publicKey),
      accept: (key) => keys.accept(key),
      signal: deadline.signal,
    })
    await new Promise<void>((resolve) => socket.end(resolve))
  } finally {
    deadline.release()
  }
}

/** Never listens: it takes the socket that we accepted, and the certificate of this moment. */
function handshake(raw: Socket, { certificate, privateKey }: AttestedIdentity): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const failed = (cause?: Error): void => {
      reject(
        new KeysError(
          'provision-handshake-failed',
          `expected TLS 1.3 with ${provisioningProtocol}, got another connection`,
          { hint: 'This port is for cloister provision only.', cause },
        ),
      )
    }
    const server = createTlsServer({
      cert: certificate,
      key: privateKey,
      minVersion: 'TLSv1.3',
      ALPNProtocols: [provisioningProtocol],
    })
    server.once('secureConnection', (socket) => {
      socket.on('error', () => raw.destroy())
      if (socket.alpnProtocol === provisioningProtocol) resolve(socket)
      else failed()
    })
    server.once('tlsClientError', failed)
    raw.once('close', () => failed())
    server.emit('connection', raw)
  })
}
