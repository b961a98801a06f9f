// SPDX-License-Identifier: Apache-2.0
/**
 * One line of the audit log: `{"body":{…},"signature":"…"}`. The body names its index and the SHA-256 of the line before; the
 * signature is Ed25519 over a label and the very bytes of the body, by the key that the `start` record before it brought with a
 * quote. The file lies on the host, who can change every byte of it: docs/audit.md says what is found out and what cannot be.
 */
import { createHash, createPublicKey, verify } from 'node:crypto'
import { CodedError } from '../errors.ts'
import type { CloisterEvent, Role } from './events.ts'

export class AuditError extends CodedError<
  | 'audit-log-unreadable'
  | 'audit-log-missing'
  | 'audit-log-damaged'
  | 'audit-log-truncated'
  | 'audit-record-malformed'
  | 'audit-chain-broken'
  | 'audit-signature-invalid'
  | 'audit-quote-mismatch'
  | 'audit-quote-refused'
  | 'audit-evidence-mismatch'
  | 'audit-collateral-missing'
> {}

/** Where a log stood: kept where the host cannot change it, it shows that nothing before was cut away. */
export interface AuditHead {
  readonly index: number
  /** SHA-256 of the line, hex. */
  readonly hash: string
}

/** Begins what one process writes. Its quote attests `publicKey`, the job, and the log up to here. */
export interface StartRecord {
  readonly record: 'start'
  readonly source: string
  readonly role: Role
  /** Digest of the job, hex. */
  readonly job: string
  /** `gramine` or `simulated`. */
  readonly platform: string
  /** Code of what this platform must say aloud, if anything. */
  readonly warning?: string
  /** Ed25519, hex; made for this start, never written. */
  readonly publicKey: string
  /** Base64. */
  readonly quote: string
  /** Bytes of an unfinished line that a killed process left, and that were cut away. */
  readonly torn: number
}

export interface EventRecord {
  readonly record: 'event'
  readonly event: AuditedEvent
  /** Records before this one that could not be written: the disk was full, say. */
  readonly lost: number
}

/** The process closed its log: without it, it was killed or the end was cut away. */
export interface EndRecord {
  readonly record: 'end'
  readonly lost: number
}

interface Place {
  readonly index: number
  /** SHA-256 of the line before, hex; zeros in front of the first. */
  readonly previous: string
  readonly time: string
}

export type AuditContent = StartRecord | EventRecord | EndRecord
export type AuditBody = Place & AuditContent

const auditedKinds = [
  'peer-joined',
  'peer-left',
  'peer-refused',
  'update-refused',
  'saved',
  'checkpointed',
  'resumed',
  'reassigned',
  'exported',
  'key-provisioned',
  'failed',
  'finished',
] as const
export type AuditedEvent = Extract<CloisterEvent, { kind: (typeof auditedKinds)[number] }>

export function isAudited(event: CloisterEvent): event is AuditedEvent {
  return auditedKinds.some((kind) => kind === event.kind)
}

export const nothingBefore = '0'.repeat(64)
const recordLabel = Buffer.from('cloister audit record v1\0', 'latin1')
const startLabel = Buffer.from('cloister audit start v1\0', 'latin1')
const spkiPrefix = Buffer.from('302a300506032b6570032100', 'hex')
/** `s`: the words of a peer may contain U+2028, which JSON leaves as it is. */
const lineFormat = /^\{"body":(\{.*\}),"signature":"([0-9a-f]{128})"\}$/s

export const lineHash = (line: Uint8Array): string => createHash('sha256').update(line).digest('hex')

/** A line without its line break. */
export function encodeRecord(body: AuditBody, sign: (message: Uint8Array) => Uint8Array): Buffer {
  const text = JSON.stringify(body)
  const signature = Buffer.from(sign(signedBytes(text))).toString('hex')
  return Buffer.from(`{"body":${text},"signature":"${signature}"}`, 'utf8')
}

export interface ParsedRecord {
  readonly body: AuditBody
  readonly signed: Uint8Array
  readonly signature: Uint8Array
}

/** Shape only: whether anybody signed it is asked with `isSignedBy`. `number` counts lines from 1. */
export function parseRecord(line: Uint8Array, number: number): ParsedRecord {
  let text: string | undefined
  let body: unknown
  let signature = ''
  try {
    const [, found, hex] = lineFormat.exec(new TextDecoder('utf-8', { fatal: true }).decode(line)) ?? []
    text = found
    signature = hex ?? ''
    body = JSON.parse(text ?? '')
  } catch {
    text = undefined
  }
  if (text === undefined || !isBody(body)) {
    throw new AuditError(
      'audit-record-malformed',
      `line ${number}: expected a record of the audit log, got another text`,
      {
        hint: 'Somebody changed the log on the host, or it is no audit log.',
      },
    )
  }
  return { body, signed: signedBytes(text), signature: Buffer.from(signature, 'hex') }
}

export function isSignedBy(publicKey: string, { signed, signature }: ParsedRecord): boolean {
  const der = Buffer.concat([spkiPrefix, Buffer.from(publicKey, 'hex')])
  return verify(null, signed, createPublicKey({ key: der, type: 'spki', format: 'der' }), signature)
}

/** What the quote of a start is over: this key, for this job, after exactly this log. */
export function startReportData({ publicKey, job, index, previous }: StartRecord & Place): Buffer {
  const place = Buffer.alloc(8)
  place.writeBigUInt64BE(BigInt(index))
  const parts = [publicKey, previous, job].map((hex) => Buffer.from(hex, 'hex'))
  const digest = createHash('sha256')
    .update(Buffer.concat([startLabel, ...parts, place]))
    .digest()
  return Buffer.concat([digest, Buffer.alloc(32)])
}

const signedBytes = (text: string): Uint8Array => Buffer.concat([recordLabel, Buffer.from(text, 'utf8')])

const isHash = (value: unknown): value is string => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)

/** What is read out of a body before its signature is checked. */
function isBody(value: unknown): value is AuditBody {
  if (typeof value !== 'object' || value === null) return false
  const body = value as Record<string, unknown>
  if (!Number.isSafeInteger(body.index) || (body.index as number) < 0 || !isHash(body.previous)) return false
  if (typeof body.time !== 'string' || Number.isNaN(Date.parse(body.time))) return false
  if (body.record === 'end') return true
  if (body.record === 'event') {
    const event = body.event as Record<string, unknown> | null
    return typeof event === 'object' && event !== null && auditedKinds.some((kind) => kind === event.kind)
  }
  const { source, role, platform, quote } = body
  const isText = [source, role, platform, quote].every((text) => typeof text === 'string')
  return body.record === 'start' && isText && isHash(body.publicKey) && isHash(body.job)
}
