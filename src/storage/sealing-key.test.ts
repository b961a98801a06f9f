import { createHmac } from 'node:crypto'
import { expect, test } from 'vitest'
import { deriveSealingKey } from './sealing-key.ts'

const device = new Uint8Array(16).fill(5)

test('HKDF-SHA-256 of RFC 5869 without salt, from its two steps', () => {
  const extracted = createHmac('sha256', Buffer.alloc(32)).update(device).digest()
  const info = 'cloister/sealing-key/v1/mrenclave/checkpoints'
  const expected = createHmac('sha256', extracted).update(info).update(Buffer.of(1)).digest('hex')
  expect(Buffer.from(deriveSealingKey(device, 'mrenclave', 'checkpoints')).toString('hex')).toBe(expected)
})

test('every source and purpose has a key of its own', () => {
  const keys = [
    deriveSealingKey(device, 'mrenclave', 'checkpoints'),
    deriveSealingKey(device, 'mrsigner', 'checkpoints'),
    deriveSealingKey(device, 'mrenclave', 'newest-seen'),
    deriveSealingKey(new Uint8Array(16), 'mrenclave', 'checkpoints'),
    deriveSealingKey(new Uint8Array(32).fill(5), 'provisioned', 'checkpoints'),
  ]
  expect(new Set(keys.map((key) => Buffer.from(key).toString('hex'))).size).toBe(keys.length)
})

test('material of another length is a mistake', () => {
  expect(() => deriveSealingKey(device, 'provisioned', 'checkpoints')).toThrow('key material of provisioned')
  expect(() => deriveSealingKey(new Uint8Array(32), 'mrsigner', 'checkpoints')).toThrow('key material of mrsigner')
})
