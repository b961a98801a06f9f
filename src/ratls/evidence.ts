// SPDX-License-Identifier: Apache-2.0
/**
 * The evidence extension of interoperable RA-TLS (CCC Attestation SIG; TCG DICE OID 2.23.133.5.4.9): CBOR
 * `60000([quote, claims])`, where `claims` is a byte string holding a CBOR map of byte strings, one of which is the hash of
 * the certificate's public key. The quote's REPORTDATA is SHA-256(claims). Every byte comes from the peer: lengths must be
 * definite and minimal, keys unique, nothing may trail. Whether the quote is genuine is decided elsewhere.
 */
import { createHash } from 'node:crypto'
import { decode, encode, Tagged } from 'cborg'
import { RatlsError } from './ratls-error.ts'

/** IANA named information hash algorithms that the specification asks a verifier to know. */
const hashAlgorithms: ReadonlyMap<unknown, { readonly name: string; readonly size: number }> = new Map([
  [1, { name: 'sha256', size: 32 }],
  [7, { name: 'sha384', size: 48 }],
  [8, { name: 'sha512', size: 64 }],
])
const sha256Id = 1
/** Intel TEE quote of any ECDSA kind. */
const quoteTag = 60000
const keyHashClaim = 'pubkey-hash'
/** A map of hashes and nonces; bounded so that no peer makes us decode for long. */
const maxClaimsBytes = 4096
const maxClaims = 32

export interface ParsedEvidence {
  readonly quote: Uint8Array
  /** The claims byte string as it came: what the quote's REPORTDATA is the hash of. */
  readonly claims: Uint8Array
  readonly keyHash: { readonly algorithm: string; readonly value: Uint8Array }
}

/** `{"pubkey-hash": bstr([1, SHA-256(SubjectPublicKeyInfo)])}`: what Gramine, Intel's SDK and RATS-TLS write. */
export function encodeClaims(publicKeyInfo: Uint8Array): Uint8Array {
  const hash = createHash('sha256').update(publicKeyInfo).digest()
  return encode(new Map([[keyHashClaim, encode([sha256Id, hash])]]))
}

export function encodeEvidence(quote: Uint8Array, claims: Uint8Array): Uint8Array {
  return encode(new Tagged(quoteTag, [quote, claims]))
}

/** The value of the evidence extension → its parts. Throws RatlsError. */
export function parseEvidence(extensionValue: Uint8Array): ParsedEvidence {
  const evidence = decodeStrictly(extensionValue, 'the evidence extension')
  if (!(evidence instanceof Tagged)) throw malformed(`expected CBOR tag ${quoteTag} around the evidence`)
  const content: unknown = evidence.value
  if (!Array.isArray(content) || content.length !== 2)
    throw malformed('expected an array of two entries under the evidence tag')
  const [quote, claims] = content as unknown[]
  if (!(quote instanceof Uint8Array) || !(claims instanceof Uint8Array))
    throw malformed('expected quote and claims to be byte strings')
  return { quote, claims, keyHash: parseKeyHash(parseClaims(claims)) }
}

/** Whether `keyHash` is the hash of this SubjectPublicKeyInfo. Public values: no constant time needed. */
export function keyHashMatches(keyHash: ParsedEvidence['keyHash'], publicKeyInfo: Uint8Array): boolean {
  return createHash(keyHash.algorithm).update(publicKeyInfo).digest().equals(keyHash.value)
}

function parseClaims(bytes: Uint8Array): ReadonlyMap<unknown, unknown> {
  if (bytes.length > maxClaimsBytes)
    throw malformed(`expected at most ${maxClaimsBytes} bytes of claims, got ${bytes.length}`)
  const claims = decodeStrictly(bytes, 'the claims')
  if (!(claims instanceof Map)) throw malformed('expected the claims to be a map')
  if (claims.size > maxClaims) throw malformed(`expected at most ${maxClaims} claims, got ${claims.size}`)
  for (const [name, value] of claims)
    if (typeof name !== 'string' || !(value instanceof Uint8Array))
      throw malformed('expected each claim to have a text name and a byte string value')
  return claims
}

function parseKeyHash(claims: ReadonlyMap<unknown, unknown>): ParsedEvidence['keyHash'] {
  const entry = claims.get(keyHashClaim)
  if (!(entry instanceof Uint8Array))
    throw new RatlsError(
      'ratls-evidence-claim-missing',
      `expected a claim ${keyHashClaim}, got ${claims.size} other claims`,
      { hint: 'Without it the quote says nothing about the certificate key. The peer must be fixed.' },
    )
  const decoded = decodeStrictly(entry, `the claim ${keyHashClaim}`)
  if (!Array.isArray(decoded) || decoded.length !== 2 || !(decoded[1] instanceof Uint8Array))
    throw malformed(`expected ${keyHashClaim} to be an array of an algorithm and a byte string`)
  const [id, value] = decoded as [unknown, Uint8Array]
  const algorithm = hashAlgorithms.get(id)
  if (algorithm === undefined || value.length !== algorithm.size)
    throw new RatlsError(
      'ratls-evidence-hash-unsupported',
      `expected a SHA-256, SHA-384 or SHA-512 hash (1, 7, 8) of its full length, got algorithm ${String(id).slice(0, 20)} with ${value.length} bytes`,
      { hint: 'The peer must hash its public key with one of the three algorithms of the specification.' },
    )
  return { algorithm: algorithm.name, value }
}

function decodeStrictly(bytes: Uint8Array, what: string): unknown {
  try {
    return decode(bytes, {
      strict: true,
      allowIndefinite: false,
      allowUndefined: false,
      useMaps: true,
      rejectDuplicateMapKeys: true,
      tags: { [quoteTag]: Tagged.decoder(quoteTag) },
    })
  } catch (cause) {
    throw malformed(`${what} is not strict CBOR: ${cause instanceof Error ? cause.message : 'unknown'}`, cause)
  }
}

function malformed(message: string, cause?: unknown): RatlsError {
  return new RatlsError('ratls-evidence-malformed', message, {
    hint: 'The evidence follows interoperable RA-TLS: CBOR 60000([quote, claims]), definite lengths, nothing trailing.',
    ...(cause === undefined ? {} : { cause }),
  })
}
