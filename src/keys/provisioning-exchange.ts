// SPDX-License-Identifier: Apache-2.0
/**
 * How an owner hands one secret to an enclave, over TLS 1.3 in which only the enclave shows a certificate (RA-TLS):
 *
 *     owner   → hello     version, role (owner), nonce, job digest
 *     enclave → hello     version, role, nonce, job digest
 *     owner   → proof     public key, Ed25519 signature over the owner's statement: no quote is made for a stranger
 *     enclave → quote     REPORTDATA = SHA-256(enclave's statement) ‖ 32 zero bytes
 *     owner   → key       name, secret: only after certificate and fresh quote have passed the owner's own policy
 *     enclave → accepted  or, instead of any frame: refused, with the reason, and the end
 *
 * docs/keys.md says what each byte of the statements is for. The host of the enclave owns the network, may relay and replay.
 */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import type { Quote } from '../attestation/quote.ts'
import { parseQuote } from '../attestation/quote.ts'
import { type AttestedRole, next, refuse } from '../ratls/attestation-exchange.ts'
import { requireFresh } from '../ratls/credentials.ts'
import { orAborted } from '../ratls/deadline.ts'
import { type Frame, FrameSocket, malformed } from '../ratls/frame-socket.ts'
import { RatlsError } from '../ratls/ratls-error.ts'
import { KeysError } from './keys-error.ts'
import { isSignedBy, type OwnerKey } from './owner-key.ts'

/** Neither side takes it for another protocol, nor another for it. */
export const provisioningProtocol = 'cloister-provisioning/1'
const protocolVersion = 1
/** Never sent: sets these hashes and signatures apart from all others. */
const statementLabel = Buffer.from('cloister key provisioning v1\0', 'latin1')
const exporterLabel = 'EXPERIMENTAL cloister key provisioning v1'
const roleCodes = { server: 1, worker: 2, owner: 3 } as const
const nonceBytes = 32
const hashBytes = 32
const publicKeyBytes = 32
const maxNameBytes = 64
const maxSecretBytes = 8000

/** A follower is reached as the server that it is. */
export type ProvisionedRole = Exclude<AttestedRole, 'follower'>

export interface ProvidedKey {
  /** Public key, base64. */
  readonly owner: string
  readonly name: string
  readonly secret: Buffer
}

export interface EnclaveSide {
  readonly socket: TLSSocket
  readonly role: ProvisionedRole
  readonly jobDigest: Uint8Array
  /** SHA-256 over the SubjectPublicKeyInfo of the certificate that we showed on this socket. */
  readonly publicKeyHash: Uint8Array
  readonly quote: (reportData: Uint8Array) => Promise<Uint8Array>
  /** Whether the job knows this public key, base64. */
  readonly isOwner: (publicKey: string) => boolean
  /** Keeps the key, or throws to refuse it. */
  readonly accept: (key: ProvidedKey) => Promise<void>
  readonly signal: AbortSignal
}

export interface OwnerSide {
  readonly socket: TLSSocket
  readonly jobDigest: Uint8Array
  readonly owner: OwnerKey
  readonly name: string
  readonly secret: Uint8Array
  /** From the enclave's certificate, already judged. */
  readonly shown: { readonly quote: Quote; readonly publicKeyHash: Uint8Array }
  /** Throws unless the owner's policy wants whom this quote proves. */
  readonly judge: (quote: Quote) => Promise<unknown>
  readonly signal: AbortSignal
}

/** Runs the enclave's side. Throws, having told the owner why. */
export async function receiveKey(options: EnclaveSide): Promise<void> {
  const { socket, role, jobDigest, publicKeyHash, signal } = options
  await withFrames(socket, signal, async (frames) => {
    const { nonce: ownerNonce } = parseHello(await next(frames, 'hello'), jobDigest, ['owner'])
    const enclaveNonce = randomBytes(nonceBytes)
    frames.write('hello', hello(role, enclaveNonce, jobDigest))
    const { body: proof } = await next(frames, 'proof')
    const ownerPublicKey = proof.subarray(0, publicKeyBytes)
    const stated = statementsOf({ socket, role, ownerNonce, enclaveNonce, publicKeyHash, ownerPublicKey, jobDigest })
    const owner = ownerPublicKey.toString('base64')
    if (!options.isOwner(owner)) {
      throw new KeysError('key-owner-unknown', `expected an owner named in the job, got the public key ${owner}`, {
        hint: 'The job lists the public keys of owners; use the key file that belongs to one of them.',
      })
    }
    if (!isSignedBy(ownerPublicKey, stated.owner, proof.subarray(publicKeyBytes))) {
      throw new KeysError('key-proof-invalid', 'expected a signature over this very connection, got another', {
        hint: 'A relay or a replay looks like this: connect to the enclave directly.',
      })
    }
    frames.write('quote', await orAborted(options.quote(reportDataOver(stated.enclave)), signal))
    await options.accept({ owner, ...parseKey(await next(frames, 'key')) })
    frames.write('accepted', Buffer.alloc(0))
  })
}

/** Runs the owner's side: the secret leaves only when everything has passed. Resolves when the enclave has it. */
export async function handOverKey(options: OwnerSide): Promise<{ readonly role: ProvisionedRole }> {
  const { socket, jobDigest, owner, shown, signal } = options
  return withFrames(socket, signal, async (frames) => {
    const ownerNonce = randomBytes(nonceBytes)
    frames.write('hello', hello('owner', ownerNonce, jobDigest))
    const peer = parseHello(await next(frames, 'hello'), jobDigest, ['server', 'worker'])
    const role = peer.role as ProvisionedRole
    const { publicKey: ownerPublicKey } = owner
    const stated = statementsOf({
      ...{ socket, role, ownerNonce, enclaveNonce: peer.nonce, ownerPublicKey, jobDigest },
      publicKeyHash: shown.publicKeyHash,
    })
    frames.write('proof', Buffer.concat([ownerPublicKey, owner.sign(stated.owner)]))
    const quote = parseQuote((await next(frames, 'quote')).body)
    requireFresh(quote, reportDataOver(stated.enclave), shown.quote)
    await orAborted(options.judge(quote), signal)
    frames.write('key', encodeKey(options.name, options.secret))
    await next(frames, 'accepted')
    return { role }
  })
}

export interface Stated {
  readonly socket: Pick<TLSSocket, 'exportKeyingMaterial'>
  readonly role: ProvisionedRole
  readonly ownerNonce: Uint8Array
  readonly enclaveNonce: Uint8Array
  readonly publicKeyHash: Uint8Array
  readonly ownerPublicKey: Uint8Array
  readonly jobDigest: Uint8Array
}

/** What each side signs: a label, then only fields of fixed size, first of which is who states it. */
export function statementsOf(fields: Stated): { readonly owner: Uint8Array; readonly enclave: Uint8Array } {
  const { socket, role, ownerNonce, enclaveNonce, publicKeyHash, ownerPublicKey, jobDigest } = fields
  const exporter = socket.exportKeyingMaterial(hashBytes, exporterLabel, Buffer.alloc(0))
  const fixed = [ownerNonce, enclaveNonce, exporter, publicKeyHash, ownerPublicKey, jobDigest]
  for (const field of fixed) assert.equal(field.length, hashBytes)
  const by = (claimant: keyof typeof roleCodes): Uint8Array =>
    Buffer.concat([statementLabel, Uint8Array.of(roleCodes[claimant], roleCodes[role]), ...fixed])
  return { owner: by('owner'), enclave: by(role) }
}

async function withFrames<Result>(
  socket: TLSSocket,
  signal: AbortSignal,
  run: (frames: FrameSocket) => Promise<Result>,
): Promise<Result> {
  const frames = new FrameSocket(socket, signal)
  try {
    return await run(frames)
  } catch (error) {
    await refuse(frames, error)
    throw error
  } finally {
    frames.release()
  }
}

function reportDataOver(statement: Uint8Array): Buffer {
  return Buffer.concat([createHash('sha256').update(statement).digest(), Buffer.alloc(32)])
}

function hello(role: keyof typeof roleCodes, nonce: Uint8Array, jobDigest: Uint8Array): Buffer {
  return Buffer.concat([Uint8Array.of(protocolVersion, roleCodes[role]), nonce, jobDigest])
}

function parseHello(
  { body }: Frame,
  jobDigest: Uint8Array,
  roles: readonly (keyof typeof roleCodes)[],
): { readonly role: keyof typeof roleCodes; readonly nonce: Buffer } {
  const role = roles.find((it) => roleCodes[it] === body[1])
  if (body.length !== 2 + nonceBytes + hashBytes || body[0] !== protocolVersion || role === undefined) {
    throw malformed(`expected a hello of version ${protocolVersion} from ${roles.join(' or ')}, got another frame`)
  }
  const theirs = body.subarray(2 + nonceBytes)
  if (theirs.equals(jobDigest)) return { role, nonce: body.subarray(2, 2 + nonceBytes) }
  const [expected, got] = [Buffer.from(jobDigest).toString('hex'), theirs.toString('hex')]
  throw new RatlsError('ratls-job-mismatch', `expected the job ${expected}, the other side has ${got}`, {
    hint: 'Give --job the very file that the enclave was started with, and the same --set; compare cloister job check.',
  })
}

function encodeKey(name: string, secret: Uint8Array): Buffer {
  const encoded = Buffer.from(name, 'latin1')
  assert(encoded.length <= maxNameBytes)
  return Buffer.concat([Uint8Array.of(encoded.length), encoded, secret])
}

function parseKey({ body }: Frame): { readonly name: string; readonly secret: Buffer } {
  const length = body[0] ?? 0
  const name = body.subarray(1, 1 + length).toString('latin1')
  requireKeyName(name)
  return { name, secret: body.subarray(1 + length) }
}

/** What fits into one frame. */
export function requireKey(name: string, secret: Uint8Array): void {
  requireKeyName(name)
  if (secret.length <= maxSecretBytes) return
  throw new KeysError('key-too-large', `expected a secret of at most ${maxSecretBytes} bytes, got ${secret.length}`, {
    hint: 'An age identity file or 32 bytes is wanted: check which file --key names.',
  })
}

function requireKeyName(name: string): void {
  if (/^[a-z0-9][a-z0-9-]{0,63}$/.test(name)) return
  const shown = name.slice(0, maxNameBytes).replaceAll(/[^\x20-\x7e]/g, '?')
  throw new KeysError('key-name-malformed', `expected a name of a key in a-z, 0-9 and -, got "${shown}"`, {
    hint: 'Names of the keys that an enclave waits for are in its log and in docs/keys.md.',
  })
}
