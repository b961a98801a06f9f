import { generateKeyPairSync, sign, verify } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { readEcKey, readEcPoint } from './ec-key.ts'

const keyOn = (namedCurve: string) => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve })
  return { publicKey, privateKey, bytes: publicKey.export({ type: 'spki', format: 'der' }) }
}
const both = ['P-256', 'P-384'] as const

describe.each(both)('a key on %s', (curve) => {
  const { publicKey, privateKey, bytes } = keyOn(curve)
  test('is the key that Node reads', () => {
    const key = readEcKey(bytes, both)!
    expect(key.equals(publicKey)).toBe(true)
    expect(verify('sha256', bytes, key, sign('sha256', bytes, privateKey))).toBe(true)
  })
  test('is none where the other curve is asked for', () => {
    expect(readEcKey(bytes, curve === 'P-256' ? ['P-384'] : ['P-256'])).toBeUndefined()
    expect(readEcKey(bytes, [])).toBeUndefined()
  })
  test('is none in any other length', () => {
    for (const length of [0, 1, 26, 27, bytes.length - 1]) {
      expect(readEcKey(bytes.subarray(0, length), both)).toBeUndefined()
    }
    expect(readEcKey(Buffer.concat([bytes, Buffer.alloc(1)]), both)).toBeUndefined()
  })
  test('is none with any bit changed', () => {
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes)
      changed[bit >> 3]! ^= 1 << (bit & 7)
      // One coordinate leaves at most three values to the other.
      expect(readEcKey(changed, both)).toBeUndefined()
    }
  })
})

test('points that are on no curve', () => {
  const prime = Buffer.from('ffffffff00000001000000000000000000000000ffffffffffffffffffffffff', 'hex')
  const points = [Buffer.alloc(64), Buffer.alloc(64, 0xff), Buffer.concat([prime, prime]), Buffer.alloc(0)]
  for (const point of points) expect(readEcPoint(point, 'P-256')).toBeUndefined()
})

test('keys that certificates of ours never have', () => {
  const compressed = (bytes: Buffer) => Buffer.concat([bytes.subarray(0, 26), Buffer.of(2), bytes.subarray(27, 59)])
  const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ type: 'spki', format: 'der' })
  const explicit = generateKeyPairSync('ec', { namedCurve: 'P-256', paramEncoding: 'explicit' }).publicKey
  const others = [
    compressed(keyOn('P-256').bytes),
    keyOn('secp256k1').bytes,
    keyOn('P-521').bytes,
    rsa,
    explicit.export({ type: 'spki', format: 'der' }),
  ]
  for (const bytes of others) expect(readEcKey(bytes, both)).toBeUndefined()
})
