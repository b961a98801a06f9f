// SPDX-License-Identifier: Apache-2.0
/**
 * Plain mutual TLS for tests and benchmarks of the transport: ephemeral self-signed certificates, each side accepting those whose
 * SHA-256 it was told. The product's own credentials are RA-TLS (src/ratls/credentials.ts).
 */
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import type { Credentials } from '../../src/transport/connection.ts'
import { TransportError } from '../../src/transport/transport-error.ts'
import { basicConstraints, createCertificate, keyUsage } from '../../src/x509/write.ts'

export interface PinnedIdentity {
  /** PEM. */
  readonly certificate: string
  readonly privateKey: string
  /** SHA-256 of the DER, lower-case hexadecimal. */
  readonly fingerprint: string
}

export interface PinnedPeer {
  readonly name: string
  readonly fingerprint: string
}

/** A fresh P-256 key and its certificate. `name` is for humans who look at the wire. */
export function createPinnedIdentity(name: string, now: Date): PinnedIdentity {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const oneDayMs = 24 * 60 * 60 * 1000
  const { der, pem } = createCertificate({
    serialNumber: BigInt(`0x${randomBytes(16).toString('hex')}`),
    issuer: { CN: name },
    subject: { CN: name },
    notBefore: new Date(now.getTime() - oneDayMs),
    notAfter: new Date(now.getTime() + 365 * oneDayMs),
    publicKey,
    extensions: [basicConstraints({ ca: false }), keyUsage('digitalSignature')],
    signingKey: privateKey,
  })
  return {
    certificate: pem,
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    fingerprint: sha256(der),
  }
}

/** Accepts the certificates in `peers` and no other. */
export function pinnedCredentials(identity: PinnedIdentity, peers: readonly PinnedPeer[]): Credentials<PinnedPeer> {
  const accepted = new Map(peers.map((peer) => [peer.fingerprint, peer]))
  return {
    identity: () => identity,
    authenticate: async ({ certificate }) => {
      const fingerprint = sha256(certificate.raw)
      const peer = accepted.get(fingerprint)
      if (peer === undefined) {
        const expected = `one of ${accepted.size} pinned certificates`
        throw new TransportError('authentication-failed', `expected ${expected}, got ${fingerprint}`)
      }
      return peer
    },
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
