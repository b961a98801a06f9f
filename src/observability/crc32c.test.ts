// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest'
import { crc32c } from './crc32c.ts'

test.each([
  // RFC 3720, appendix B.4; the last is the check value of the CRC catalogue.
  ['32 bytes of zeroes', new Uint8Array(32), 0x8a9136aa],
  ['32 bytes of ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
  ['32 bytes rising', Uint8Array.from({ length: 32 }, (_, index) => index), 0x46dd794e],
  ['32 bytes falling', Uint8Array.from({ length: 32 }, (_, index) => 31 - index), 0x113fdb5c],
  ['123456789', Buffer.from('123456789'), 0xe3069283],
  ['nothing', new Uint8Array(0), 0],
])('%s', (_, bytes, expected) => {
  expect(crc32c(bytes)).toBe(expected)
})
