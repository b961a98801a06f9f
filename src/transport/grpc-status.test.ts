import fc from 'fast-check'
import { expect, test } from 'vitest'
import { percentEncode, trailersOf } from './grpc-status.ts'

// Vectors by the rule of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Status-Message".
test.each([
  ['my favorite character is ☺', 'my favorite character is %E2%98%BA'],
  ['100%', '100%25'],
  ['a\r\nb', 'a%0D%0Ab'],
  ['~ }', '~ }'],
])('%j is written %s', (text, encoded) => {
  expect(percentEncode(text)).toBe(encoded)
})

test('any text survives the wire, in plain ASCII', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      expect(percentEncode(text)).toMatch(/^[ -~]*$/)
      expect(decodeURIComponent(percentEncode(text))).toBe(text)
    }),
  )
})

test('an orderly end is status 0 and no reason', () => {
  expect(trailersOf(undefined)).toEqual({ 'grpc-status': '0' })
})

test.each([
  ['message-too-large', '8'],
  ['message-malformed', '3'],
  ['method-unknown', '12'],
  ['service-unknown', '5'],
  ['internal', '13'],
  ['update-refused', '9'],
])('%s travels as gRPC status %s with its own code beside', (code, status) => {
  expect(trailersOf({ code, message: 'expected a, got 5 %' })).toEqual({
    'grpc-status': status,
    'grpc-message': 'expected a, got 5 %25',
    'cloister-code': code,
  })
})
