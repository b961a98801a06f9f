/** SIGSTRUCTs of our own making, field by field as in the table of Intel's manual (volume 3D, table "Layout of Enclave Signature Structure"). */
import { createHash, generateKeyPairSync, sign } from 'node:crypto'

/** 3072 bits, exponent 3: all that SGX takes. */
export const signer = generateKeyPairSync('rsa', { modulusLength: 3072, publicExponent: 3 })

export function makeSigstruct(
  enclave: { mrEnclave: string; productId?: number; svn?: number; debug?: boolean },
  key = signer,
): Buffer {
  const bytes = Buffer.alloc(1808)
  bytes.write('06000000e10000000000010000000000', 0, 'hex')
  bytes.writeUInt32LE(0x20260102, 20)
  bytes.write('01010000600000006000000001000000', 24, 'hex')
  const modulus = Buffer.from(key.publicKey.export({ format: 'jwk' }).n as string, 'base64url').reverse()
  modulus.copy(bytes, 128)
  bytes.writeUInt32LE(3, 512)
  bytes.writeUInt8(enclave.debug === true ? 6 : 4, 928)
  bytes.write(enclave.mrEnclave, 960, 'hex')
  bytes.writeUInt16LE(enclave.productId ?? 1, 1024)
  bytes.writeUInt16LE(enclave.svn ?? 1, 1026)
  const signed = Buffer.concat([bytes.subarray(0, 128), bytes.subarray(900, 1028)])
  sign('sha256', signed, key.privateKey).reverse().copy(bytes, 516)
  return bytes
}

export const mrSigner = createHash('sha256')
  .update(Buffer.from(signer.publicKey.export({ format: 'jwk' }).n as string, 'base64url').reverse())
  .digest('hex')
