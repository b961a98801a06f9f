import fc from 'fast-check'
import { expect, test } from 'vitest'
import { percentDecode, percentEncode, reasonOf, trailersOf } from './grpc-status.ts'
import { reasonFor, TransportError } from './transport-error.ts'

// Vectors by the rule of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Status-Message".
test.each([
  ['my favorite character is ☺', 'my favorite character is %E2%98%BA'],
  ['100%', '100%25'],
  ['a\r\nb', 'a%0D%0Ab'],
  ['~ }', '~ }'],
])('%j is written %s', (text, encoded) => {
  expect(percentEncode(text)).toBe(encoded)
  expect(percentDecode(encoded)).toBe(text)
})

test('what is not valid percent-encoding stands as it came', () => {
  expect(percentDecode('50% of %ZZ and %4')).toBe('50% of %ZZ and %4')
})

test('any text survives the wire, in plain ASCII', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      expect(percentEncode(text)).toMatch(/^[ -~]*$/)
      expect(percentDecode(percentEncode(text))).toBe(text)
    }),
  )
})

test('an orderly end is status 0 and no reason', () => {
  expect(trailersOf(undefined)).toEqual({ 'grpc-status': '0' })
  expect(reasonOf({ 'grpc-status': '0' })).toBeUndefined()
})

test.each([
  ['message-too-large', '8'],
  ['message-malformed', '3'],
  ['method-unknown', '12'],
  ['internal', '13'],
  ['update-refused', '9'],
])('%s travels as gRPC status %s with its own code beside', (code, status) => {
  const trailers = trailersOf({ code, message: 'expected a, got b' })
  expect(trailers['grpc-status']).toBe(status)
  expect(reasonOf(trailers as Record<string, string>)).toEqual({ code, message: 'expected a, got b' })
})

test('a foreign server is understood by its status', () => {
  expect(reasonOf({ 'grpc-status': '14', 'grpc-message': 'try later' })).toEqual({
    code: 'grpc-unavailable',
    message: 'try later',
  })
})

test.each([
  [{}, 'grpc-unknown'],
  [{ 'grpc-status': '-1' }, 'grpc-unknown'],
  [{ 'grpc-status': '99' }, 'grpc-unknown'],
  [{ 'grpc-status': '1e0' }, 'grpc-unknown'],
  [{ 'grpc-status': '5', 'cloister-code': 'Bad Code\n' }, 'grpc-not-found'],
  [{ 'grpc-status': '5', 'cloister-code': 'x'.repeat(65) }, 'grpc-not-found'],
])('hostile trailers %j give %s', (trailers, code) => {
  expect(reasonOf(trailers)?.code).toBe(code)
})

test('a message from the peer is one bounded line without control characters', () => {
  const hostile = percentEncode(`ok\n2026 forged\u001b[2J\u202e\u2028${'x'.repeat(5000)}`)
  const { message } = reasonOf({ 'grpc-status': '2', 'grpc-message': hostile })!
  expect(message).toHaveLength(1024)
  expect(message).toMatch(/^ok�2026 forged�\[2J��x+$/)
})

test('of a bug the peer learns only that there is one', () => {
  const bug = new Error('ENOENT: /secret/path')
  expect(JSON.stringify(reasonFor(bug))).not.toContain('secret')
  expect(reasonFor(new TransportError('message-too-large', 'a', { cause: bug }))).toEqual({
    code: 'message-too-large',
    message: 'a',
  })
})
