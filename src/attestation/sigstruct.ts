// SPDX-License-Identifier: Apache-2.0
/**
 * SIGSTRUCT, what an enclave's author signs (Intel SDM volume 3D, "Enclave Signature Structure"): MRENCLAVE and attributes of the enclave,
 * under the key whose hash is MRSIGNER. Read outside the enclave, from a file that anybody may have made: nothing counts before the
 * signature is verified, and even then only the caller knows whose MRSIGNER it wants.
 */
import { createHash, createPublicKey, verify } from 'node:crypto'
import { CodedError } from '../errors.ts'

export class SigstructError extends CodedError<'sigstruct-malformed' | 'sigstruct-signature-invalid'> {}

export interface SignedEnclave {
  readonly mrEnclave: string
  readonly mrSigner: string
  readonly productId: number
  readonly svn: number
  readonly debug: boolean
  /** The day of signing, as the signer says: 20260102. */
  readonly date: string
}

export const sigstructBytes = 1808

/** Constants that the processor checks: offset, bytes. */
const constants = [
  [0, '06000000e10000000000010000000000'],
  [24, '01010000600000006000000001000000'],
] as const

const fields = {
  date: 20,
  modulus: 128,
  exponent: 512,
  signature: 516,
  /** From here on signed, as are the first 128 bytes. */
  body: 900,
  attributes: 928,
  mrEnclave: 960,
  productId: 1024,
  svn: 1026,
  bodyEnd: 1028,
} as const

const keyBytes = 384
const debugFlag = 2

export function verifySigstruct(bytes: Uint8Array): SignedEnclave {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.length !== sigstructBytes) refuse(`expected ${sigstructBytes} bytes, got ${view.length}`)
  for (const [offset, hex] of constants) {
    const got = view.toString('hex', offset, offset + hex.length / 2)
    if (got !== hex) refuse(`expected ${hex} at ${offset}, got ${got}`)
  }
  const exponent = view.readUInt32LE(fields.exponent)
  if (exponent !== 3) refuse(`expected exponent 3, got ${exponent}`)
  const modulus = view.subarray(fields.modulus, fields.modulus + keyBytes)
  const key = createPublicKey({
    format: 'jwk',
    key: { kty: 'RSA', e: 'Aw', n: bigEndian(modulus).toString('base64url') },
  })
  const signed = Buffer.concat([view.subarray(0, fields.modulus), view.subarray(fields.body, fields.bodyEnd)])
  const signature = bigEndian(view.subarray(fields.signature, fields.signature + keyBytes))
  if (!verify('sha256', signed, key, signature)) {
    throw new SigstructError('sigstruct-signature-invalid', 'expected a signature over the enclave, got another', {
      hint: 'The file was changed after it was signed: get it anew, or sign again.',
    })
  }
  return {
    mrEnclave: view.toString('hex', fields.mrEnclave, fields.mrEnclave + 32),
    mrSigner: createHash('sha256').update(modulus).digest('hex'),
    productId: view.readUInt16LE(fields.productId),
    svn: view.readUInt16LE(fields.svn),
    debug: (view.readUInt8(fields.attributes) & debugFlag) !== 0,
    date: Buffer.from(view.subarray(fields.date, fields.date + 4))
      .reverse()
      .toString('hex'),
  }
}

function refuse(what: string): never {
  throw new SigstructError('sigstruct-malformed', `SIGSTRUCT: ${what}`, {
    hint: 'Name the .sig file that gramine-sgx-sign wrote.',
  })
}

function bigEndian(littleEndian: Uint8Array): Buffer {
  return Buffer.from(littleEndian).reverse()
}
