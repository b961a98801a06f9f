import { createHash } from 'node:crypto'
import { encode, Tagged } from 'cborg'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeClaims, encodeEvidence, keyHashMatches, parseEvidence } from './evidence.ts'
import { RatlsError } from './ratls-error.ts'

const keyInfo = Buffer.from('any SubjectPublicKeyInfo')
const claims = encodeClaims(keyInfo)
const quote = Buffer.from('a quote')
const evidence = Buffer.from(encodeEvidence(quote, claims))
const hash = (algorithm: string) => createHash(algorithm).update(keyInfo).digest()

const codeOf = (bytes: Uint8Array): string => {
  try {
    parseEvidence(bytes)
    return 'accepted'
  } catch (error) {
    if (error instanceof RatlsError) return error.code
    throw error
  }
}
const withClaims = (value: Uint8Array): Uint8Array => encodeEvidence(quote, value)
const withKeyHash = (value: unknown): Uint8Array => withClaims(encode(new Map([['pubkey-hash', value]])))

test('our claims are, byte for byte, those of Gramine for the same key', () => {
  // Gramine 1.9 tools/sgx/ra-tls/ra_tls_attest.c, and gramine-cert.pem: A1 6B "pubkey-hash" 58 24 82 01 58 20 <hash>.
  const expected = `a16b${Buffer.from('pubkey-hash').toString('hex')}582482015820${hash('sha256').toString('hex')}`
  expect(Buffer.from(claims).toString('hex')).toBe(expected)
  expect(evidence.toString('hex')).toBe(`d9ea608247${quote.toString('hex')}5833${expected}`)
})

test('what is encoded comes back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 6000 }), fc.uint8Array({ maxLength: 200 }), (quote, keyInfo) => {
      const claims = encodeClaims(keyInfo)
      const parsed = parseEvidence(encodeEvidence(quote, claims))
      expect(Buffer.from(parsed.quote)).toEqual(Buffer.from(quote))
      expect(Buffer.from(parsed.claims)).toEqual(Buffer.from(claims))
      expect(keyHashMatches(parsed.keyHash, keyInfo)).toBe(true)
      expect(keyHashMatches(parsed.keyHash, Buffer.concat([keyInfo, Buffer.alloc(1)]))).toBe(false)
    }),
  )
})

test.each([
  [1, 'sha256'],
  [7, 'sha384'],
  [8, 'sha512'],
])('hash algorithm %i is %s', (id, algorithm) => {
  const { keyHash } = parseEvidence(withKeyHash(encode([id, hash(algorithm)])))
  expect(keyHashMatches(keyHash, keyInfo)).toBe(true)
})

test('other claims, such as a nonce, are ignored', () => {
  const many = new Map([
    ['nonce', Buffer.alloc(64)],
    ['pubkey-hash', encode([1, hash('sha256')])],
    ['key_0', Buffer.from('value_0')],
  ])
  expect(codeOf(withClaims(encode(many)))).toBe('accepted')
})

describe('§6.7 claims lack pubkey-hash', () => {
  test.each([
    ['no claim at all', new Map()],
    ['another claim', new Map([['nonce', hash('sha256')]])],
    ['another spelling', new Map([['Pubkey-Hash', encode([1, hash('sha256')])]])],
  ])('%s', (_title, map) => {
    expect(codeOf(withClaims(encode(map)))).toBe('ratls-evidence-claim-missing')
  })
})

test('§6.8 duplicate claim key', () => {
  const entry = Buffer.from(encode('pubkey-hash'))
  const value = Buffer.from(encode(encode([1, hash('sha256')])))
  expect(codeOf(withClaims(Buffer.concat([Buffer.of(0xa1), entry, value])))).toBe('accepted')
  expect(codeOf(withClaims(Buffer.concat([Buffer.of(0xa2), entry, value, entry, value])))).toBe(
    'ratls-evidence-malformed',
  )
})

describe('§6.9 wrong tag, indefinite or trailing CBOR', () => {
  const array = encode([quote, claims])
  const keyHash = Buffer.from(encode([1, hash('sha256')]))
  test.each<[string, Uint8Array]>([
    ['no tag', array],
    ['tag of a report', encode(new Tagged(60002, [quote, claims]))],
    ['tag twice', Buffer.concat([evidence.subarray(0, 3), evidence])],
    ['tag in five bytes', Buffer.concat([Buffer.from('da0000ea60', 'hex'), array])],
    ['one entry', encode(new Tagged(60000, [quote]))],
    ['three entries', encode(new Tagged(60000, [quote, claims, claims]))],
    ['a map', encode(new Tagged(60000, { quote, claims }))],
    ['text for bytes', encode(new Tagged(60000, ['a quote', claims]))],
    ['claims not in a byte string', encode(new Tagged(60000, [quote, { 'pubkey-hash': keyHash }]))],
    ['indefinite array', Buffer.concat([Buffer.from('d9ea609f', 'hex'), array.subarray(1), Buffer.of(0xff)])],
    ['indefinite byte string', Buffer.concat([Buffer.from('d9ea60825f4161ff', 'hex'), encode(claims)])],
    ['indefinite map', withClaims(Buffer.concat([Buffer.of(0xbf), claims.subarray(1), Buffer.of(0xff)]))],
    ['length in more bytes than needed', Buffer.concat([Buffer.from('d9ea60825807', 'hex'), quote, encode(claims)])],
    ['trailing byte', Buffer.concat([evidence, Buffer.of(0)])],
    ['trailing byte in the claims', withClaims(Buffer.concat([claims, Buffer.of(0)]))],
    ['trailing byte in the hash', withKeyHash(Buffer.concat([keyHash, Buffer.of(0)]))],
    ['empty', Buffer.alloc(0)],
    ['claims are a list', withClaims(encode([keyHash]))],
    ['claim name is a number', withClaims(encode(new Map([[1, keyHash]])))],
    ['claim value is text', withClaims(encode(new Map([['pubkey-hash', 'hash']])))],
    ['hash entry not in a byte string', withKeyHash([1, hash('sha256')])],
    ['hash entry of one', withKeyHash(encode([1]))],
    ['hash value is text', withKeyHash(encode([1, 'hash']))],
    ['too many claims', withClaims(encode(new Map(Array.from({ length: 33 }, (_, index) => [`c${index}`, quote]))))],
    ['too long claims', withClaims(encode(new Map([['pubkey-hash', Buffer.alloc(5000)]])))],
    ['nesting as deep as the bytes reach', Buffer.concat([evidence.subarray(0, 4), Buffer.alloc(16_000, 0x81)])],
  ])('%s', (_title, bytes) => {
    expect(codeOf(bytes)).toBe('ratls-evidence-malformed')
  })

  test('cut anywhere', () => {
    for (let end = 0; end < evidence.length; end++)
      expect(codeOf(evidence.subarray(0, end)), `${end} bytes`).toBe('ratls-evidence-malformed')
  })
})

describe('§6.10 unknown hash algorithm or length', () => {
  test.each<[string, unknown]>([
    ['SHA-256-128', encode([2, hash('sha256').subarray(0, 16)])],
    ['SHA3-256', encode([10, hash('sha256')])],
    ['algorithm zero', encode([0, hash('sha256')])],
    ['negative algorithm', encode([-1, hash('sha256')])],
    ['algorithm by name', encode(['sha-256', hash('sha256')])],
    ['truncated SHA-256', encode([1, hash('sha256').subarray(0, 31)])],
    ['SHA-256 called SHA-384', encode([7, hash('sha256')])],
    ['no hash', encode([1, Buffer.alloc(0)])],
  ])('%s', (_title, entry) => {
    expect(codeOf(withKeyHash(entry))).toBe('ratls-evidence-hash-unsupported')
  })
})

test('any bytes: parsed or refused with a code, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void codeOf(bytes)),
    { numRuns: 2000 },
  )
  const anyChange = fc.tuple(fc.nat(evidence.length - 1), fc.uint8Array({ minLength: 1, maxLength: 4 }))
  fc.assert(
    fc.property(anyChange, ([offset, bytes]) => {
      const changed = Buffer.from(evidence)
      changed.set(bytes.subarray(0, changed.length - offset), offset)
      void codeOf(changed)
    }),
    { numRuns: 2000 },
  )
})
