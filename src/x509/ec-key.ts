// SPDX-License-Identifier: Apache-2.0
/**
 * Public keys on NIST curves, bytes → KeyObject. Only the one encoding that certificates use (RFC 5480: named curve, uncompressed
 * point) is read: an explicit curve could be any curve, and a hash over a key must have one meaning. The coordinates go to
 * OpenSSL as a JWK, which checks that the point is on the curve and costs half of what its DER decoder does.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'

export type CurveName = 'P-256' | 'P-384'

/** `header`: SubjectPublicKeyInfo up to the coordinates: algorithm, curve, BIT STRING without unused bits, uncompressed. */
const curves = {
  'P-256': { header: '3059301306072a8648ce3d020106082a8648ce3d03010703420004', pointBytes: 64 },
  'P-384': { header: '3076301006072a8648ce3d020106052b8104002203620004', pointBytes: 96 },
} as const satisfies Record<CurveName, { header: string; pointBytes: number }>

/** Of a SubjectPublicKeyInfo; undefined if it is no key on one of these curves. */
export function readEcKey(publicKeyInfo: Buffer, accepted: readonly CurveName[]): KeyObject | undefined {
  for (const curve of accepted) {
    const { header } = curves[curve]
    const headerBytes = header.length / 2
    if (publicKeyInfo.toString('hex', 0, headerBytes) === header) {
      return readEcPoint(publicKeyInfo.subarray(headerBytes), curve)
    }
  }
  return undefined
}

/** Of x‖y; undefined if that is no point on the curve. */
export function readEcPoint(point: Buffer, curve: CurveName): KeyObject | undefined {
  const { pointBytes } = curves[curve]
  if (point.length !== pointBytes) return undefined
  const x = point.toString('base64url', 0, pointBytes / 2)
  const y = point.toString('base64url', pointBytes / 2)
  try {
    return createPublicKey({ key: { kty: 'EC', crv: curve, x, y }, format: 'jwk' })
  } catch {
    return undefined
  }
}
