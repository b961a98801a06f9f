import { createHash, X509Certificate } from 'node:crypto'
import { expect, test } from 'vitest'
import type { Handshake } from '../../src/transport/connection.ts'
import { createPinnedIdentity, pinnedCredentials } from './pinned.ts'

const now = new Date('2026-03-04T05:06:07Z')

function presenting(certificate: string): Handshake {
  return { certificate: new X509Certificate(certificate) } as Handshake
}

test('an identity is a self-signed P-256 certificate, named by the SHA-256 of its DER', () => {
  const identity = createPinnedIdentity('worker 3', now)
  const certificate = new X509Certificate(identity.certificate)
  expect(certificate.verify(certificate.publicKey)).toBe(true)
  expect(certificate.subject).toBe('CN=worker 3')
  expect(certificate.publicKey.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' })
  expect(identity.fingerprint).toBe(createHash('sha256').update(certificate.raw).digest('hex'))
  expect(new Date(certificate.validFrom) < now && now < new Date(certificate.validTo)).toBe(true)
})

test('two identities share neither key nor serial number', () => {
  const [a, b] = [createPinnedIdentity('x', now), createPinnedIdentity('x', now)]
  expect(new X509Certificate(a.certificate).serialNumber).not.toBe(new X509Certificate(b.certificate).serialNumber)
  expect(a.privateKey).not.toBe(b.privateKey)
})

test('only a pinned certificate is a peer, and the peer is who the launcher says', async () => {
  const [own, worker, stranger] = ['server', 'worker', 'worker'].map((name) => createPinnedIdentity(name, now))
  const credentials = pinnedCredentials(own!, [{ name: 'worker 0', fingerprint: worker!.fingerprint }])
  const signal = new AbortController().signal
  expect(await credentials.authenticate(presenting(worker!.certificate), signal)).toEqual({
    name: 'worker 0',
    fingerprint: worker!.fingerprint,
  })
  for (const other of [stranger!, own!]) {
    await expect(credentials.authenticate(presenting(other.certificate), signal)).rejects.toMatchObject({
      code: 'authentication-failed',
      message: expect.stringContaining(other.fingerprint),
    })
  }
})
