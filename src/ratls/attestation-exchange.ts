// SPDX-License-Identifier: Apache-2.0
/**
 * After the TLS handshake and before any byte of the application, each side proves with a fresh quote that *its enclave*
 * holds *this* connection now. A certificate alone proves neither: whoever steals its key may replay it until it expires.
 *
 *     both  → hello     version, role, nonce, job digest
 *     both  → quote     REPORTDATA = SHA-256(statement) ‖ 32 zero bytes
 *     both  → accepted  or, instead of any frame: refused, with the reason, and the end
 *
 * docs/protocol.md says what each byte of the statement is for. All that arrives comes from a peer that has shown a
 * certificate and nothing else; the host between the two enclaves sees and changes ciphertext only.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { publicError } from '../errors.ts'
import { orAborted } from './deadline.ts'
import { type Frame, FrameSocket, type FrameType, malformed } from './frame-socket.ts'
import { RatlsError } from './ratls-error.ts'

/** `follower`: a server of a job with several, as it connects to server 0. */
export type AttestedRole = 'server' | 'worker' | 'follower'

const protocolVersion = 1
/** Never sent: sets these hashes apart from all others that an enclave may put into REPORTDATA. */
const statementLabel = Buffer.from('cloister attestation exchange v1\0', 'latin1')
/** RFC 5705 §4 keeps this prefix for use without registration. */
export const exporterLabel = 'EXPERIMENTAL cloister attestation exchange v1'
const roleCodes = { server: 1, worker: 2, follower: 3 } as const satisfies Record<AttestedRole, number>
const hashBytes = 32
const nonceBytes = 32
const helloBytes = 2 + nonceBytes + hashBytes
/** How long a refused peer is given to read why. */
const lingerMs = 1000

/** What both ends know of one of them before its quote arrives. */
export interface Claimant {
  readonly role: AttestedRole
  readonly nonce: Uint8Array
  /** SHA-256 over the SubjectPublicKeyInfo of the certificate that it showed in this handshake. */
  readonly publicKeyHash: Uint8Array
}

export interface ExchangeOptions<Proven> {
  readonly socket: TLSSocket
  readonly own: Claimant
  /** Which roles may be at the other end. */
  readonly peerRoles: readonly AttestedRole[]
  readonly peerPublicKeyHash: Uint8Array
  /** SHA-256 over the canonical JSON of the job: both sides must work on the same one. */
  readonly jobDigest: Uint8Array
  /** A quote of this enclave over these 64 bytes. */
  readonly quote: (reportData: Uint8Array) => Promise<Uint8Array>
  /** Verifies the peer's quote, whose REPORTDATA must be these 64 bytes, and returns what it proves; throws to refuse. */
  readonly verify: (quote: Uint8Array, reportData: Uint8Array) => Promise<Proven>
  readonly signal: AbortSignal
}

export interface Exchanged<Proven> {
  readonly proven: Proven
  /** The one of `peerRoles` that the peer stated. */
  readonly role: AttestedRole
}

/** Runs our side of the exchange and returns what the peer's fresh quote proved. Throws, having told the peer why. */
export async function exchangeQuotes<Proven>(options: ExchangeOptions<Proven>): Promise<Exchanged<Proven>> {
  const { socket, own, jobDigest } = options
  const frames = new FrameSocket(socket, options.signal)
  try {
    frames.write('hello', hello(own, jobDigest))
    const peer = parseHello(await next(frames, 'hello'), options)
    const exporter = socket.exportKeyingMaterial(hashBytes, exporterLabel, Buffer.alloc(0))
    const ownReportData = reportData(statement(own, peer, exporter, jobDigest))
    frames.write('quote', await orAborted(options.quote(ownReportData), options.signal))
    const { body: quote } = await next(frames, 'quote')
    const peerReportData = reportData(statement(peer, own, exporter, jobDigest))
    const proven = await orAborted(options.verify(quote, peerReportData), options.signal)
    frames.write('accepted', Buffer.alloc(0))
    await next(frames, 'accepted')
    return { proven, role: peer.role }
  } catch (error) {
    await refuse(frames, error)
    throw error
  } finally {
    frames.release()
  }
}

/** Tells a peer why it is refused before the exchange began, in place of our hello. */
export async function refusePeer(socket: TLSSocket, signal: AbortSignal, error: unknown): Promise<void> {
  const frames = new FrameSocket(socket, signal)
  try {
    await refuse(frames, error)
  } finally {
    frames.release()
  }
}

/**
 * What a claimant's quote is over: a label, then only fields of fixed size. The claimant's nonce follows the challenger's,
 * so no order of messages makes one side's statement the other's.
 */
export function statement(
  claimant: Claimant,
  challenger: Claimant,
  exporter: Uint8Array,
  jobDigest: Uint8Array,
): Uint8Array {
  assert.equal(claimant.nonce.length, nonceBytes)
  assert.equal(challenger.nonce.length, nonceBytes)
  for (const hash of [claimant.publicKeyHash, challenger.publicKeyHash, exporter, jobDigest])
    assert.equal(hash.length, hashBytes)
  return Buffer.concat([
    statementLabel,
    challenger.nonce,
    claimant.nonce,
    exporter,
    Uint8Array.of(roleCodes[claimant.role]),
    claimant.publicKeyHash,
    challenger.publicKeyHash,
    jobDigest,
  ])
}

function reportData(stated: Uint8Array): Uint8Array {
  return Buffer.concat([createHash('sha256').update(stated).digest(), Buffer.alloc(32)])
}

function hello(own: Claimant, jobDigest: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(protocolVersion, roleCodes[own.role]), own.nonce, jobDigest])
}

function parseHello({ body }: Frame, options: ExchangeOptions<unknown>): Claimant {
  const [version, role] = body
  if (body.length !== helloBytes || version !== protocolVersion)
    throw malformed(
      `expected a hello of version ${protocolVersion} with ${helloBytes} bytes, got version ${version} with ${body.length}`,
    )
  const stated = (Object.keys(roleCodes) as AttestedRole[]).find((name) => roleCodes[name] === role)
  if (stated === undefined || !options.peerRoles.includes(stated))
    throw new RatlsError(
      'ratls-role-mismatch',
      `expected a peer of role ${options.peerRoles.join(' or ')}, got ${stated ?? 'an unknown role'}`,
      { hint: 'Workers and followers connect to servers, and servers to nobody: check which address belongs to whom.' },
    )
  const jobDigest = body.subarray(2 + nonceBytes)
  if (!jobDigest.equals(options.jobDigest))
    throw new RatlsError(
      'ratls-job-mismatch',
      `expected the job ${Buffer.from(options.jobDigest).toString('hex')}, the peer has ${jobDigest.toString('hex')}`,
      { hint: 'Both must be started with the same job file, byte for byte in its meaning; compare their digests.' },
    )
  return {
    role: stated,
    nonce: body.subarray(2, 2 + nonceBytes),
    publicKeyHash: options.peerPublicKeyHash,
  }
}

/** The frame that is due; throws `ratls-refused-by-peer` when the peer refuses instead. */
export async function next(frames: FrameSocket, expected: Exclude<FrameType, 'refused'>): Promise<Frame> {
  const frame = await frames.read(expected)
  if (frame.type === 'refused') throw refusal(frame.body)
  return frame
}

/** Tells the peer why, and waits until it can have read it. */
export async function refuse(frames: FrameSocket, error: unknown): Promise<void> {
  const { code, message } = publicError(error)
  // A peer that refused us, or went away, needs no answer; our own bugs are nobody else's business.
  if (['ratls-refused-by-peer', 'ratls-exchange-closed', 'internal'].includes(code)) return
  frames.write('refused', cutToBytes(`${code}\n${message}`, 1024))
  await frames.end(lingerMs)
}

/** The peer's own words, to be shown as such: printable, bounded, and no reason to believe anything. */
function refusal(body: Buffer): RatlsError {
  const [code = '', message = ''] = body.toString('utf8').split('\n', 2)
  const quoted = [code, message].map((text) => text.replaceAll(/[^\x20-\x7e]/g, '?')).join(': ')
  return new RatlsError('ratls-refused-by-peer', `the peer refused us: ${quoted}`, {
    hint: 'The code is explained in docs/errors.md; what the peer expected is in the message.',
  })
}

function cutToBytes(text: string, maxBytes: number): Uint8Array {
  return Buffer.from(text, 'utf8').subarray(0, maxBytes)
}
