// SPDX-License-Identifier: Apache-2.0
/**
 * The key by which an enclave knows a data owner: Ed25519 (RFC 8032), its public half in the job that all parties agree on, its
 * private half in a PKCS #8 file on the owner's machine, as `cloister keygen` and `openssl genpkey -algorithm ed25519` write it.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto'
import { KeysError } from './keys-error.ts'

export interface OwnerKey {
  /** 32 bytes, as RFC 8032 encodes them. */
  readonly publicKey: Buffer
  sign(message: Uint8Array): Buffer
}

const publicKeyBytes = 32
const derPrefix = Buffer.from('302a300506032b6570032100', 'hex')

/** PEM of a new private key. */
export function generateOwnerKey(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

/** `name` is what errors call the file. */
export function parseOwnerKey(pem: string, name: string): OwnerKey {
  let key: KeyObject | undefined
  try {
    key = createPrivateKey(pem)
  } catch {
    // Without the cause, which knows parts of the text.
  }
  if (key?.asymmetricKeyType !== 'ed25519') {
    const got = key === undefined ? 'another text' : `a key of type ${key.asymmetricKeyType}`
    throw new KeysError('owner-key-malformed', `${name}: expected an Ed25519 private key in PEM, got ${got}`, {
      hint: 'cloister keygen owner FILE writes one; so does openssl genpkey -algorithm ed25519.',
    })
  }
  const privateKey = key
  const der = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  return {
    publicKey: der.subarray(derPrefix.length),
    sign: (message) => sign(null, message, privateKey),
  }
}

/** Whether the holder of `publicKey` signed `message`. */
export function isSignedBy(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== publicKeyBytes) return false
  try {
    const key = createPublicKey({ key: Buffer.concat([derPrefix, publicKey]), type: 'spki', format: 'der' })
    return verify(null, message, key, signature)
  } catch {
    return false
  }
}
