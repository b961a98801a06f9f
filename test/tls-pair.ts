/** Two connected TLS sockets in this process, over loopback, mutually showing the given certificates unless told otherwise. */
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { type ConnectionOptions, connect, createServer, type TLSSocket, type TlsOptions } from 'node:tls'
import { basicConstraints, createCertificate } from '../src/x509/write.ts'

export interface TlsIdentity {
  readonly certificate: string
  readonly privateKey: string
}

/** A certificate without evidence, as any TLS client could have. */
export function plainIdentity(): TlsIdentity {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const name = { CN: 'plain' }
  const { pem } = createCertificate({
    serialNumber: 1n,
    issuer: name,
    subject: name,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3_600_000),
    publicKey,
    extensions: [basicConstraints({ ca: false })],
    signingKey: privateKey,
  })
  return { certificate: pem, privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }
}

/** What each socket of a pair showed in its handshake. */
export const shownBy = new WeakMap<TLSSocket, TlsIdentity>()

export interface TlsPair extends AsyncDisposable {
  readonly client: TLSSocket
  readonly server: TLSSocket
}

export async function tlsPair(
  serverIdentity: TlsIdentity,
  clientIdentity: TlsIdentity | undefined,
  options: { server?: TlsOptions; client?: ConnectionOptions } = {},
): Promise<TlsPair> {
  const listener = createServer({
    cert: serverIdentity.certificate,
    key: serverIdentity.privateKey,
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: false,
    ...options.server,
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const client = connect({
    host: '127.0.0.1',
    port: (listener.address() as AddressInfo).port,
    ...(clientIdentity && { cert: clientIdentity.certificate, key: clientIdentity.privateKey }),
    rejectUnauthorized: false,
    ...options.client,
  })
  const [[server]] = (await Promise.all([once(listener, 'secureConnection'), once(client, 'secureConnect')])) as [
    [TLSSocket],
    unknown,
  ]
  for (const socket of [client, server]) socket.on('error', () => {})
  shownBy.set(server, serverIdentity)
  if (clientIdentity) shownBy.set(client, clientIdentity)
  return {
    client,
    server,
    async [Symbol.asyncDispose]() {
      client.destroy()
      server.destroy()
      await new Promise((resolve) => listener.close(resolve))
    },
  }
}
