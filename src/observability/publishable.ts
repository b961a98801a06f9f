// SPDX-License-Identifier: Apache-2.0
/**
 * What an event may be at run time: the fields of its kind and no other, numbers as single numbers, text cut to a bound. Every event
 * of an enclave passes here on its way out, so that nothing bulky (a tensor, a row, a batch) leaves by a mistake that types did not
 * see; and every event that another process wrote passes here on its way in.
 */
import { type PublicError, publicError } from '../errors.ts'
import type { CloisterEvent, PeerEvidence } from './events.ts'

type Kind = CloisterEvent['kind']
type EventOf<K extends Kind> = Extract<CloisterEvent, { kind: K }>
type Optional<T, Name extends string> = undefined extends T ? `${Name}?` : Name

/** How a field is checked. A type that is none of these has no shape: a field of it cannot be put into the table. */
export type ShapeOf<T> = [NonNullable<T>] extends [number]
  ? Optional<T, 'number'>
  : [NonNullable<T>] extends [string]
    ? Optional<T, 'text'>
    : [NonNullable<T>] extends [PublicError]
      ? Optional<T, 'error'>
      : [NonNullable<T>] extends [PeerEvidence]
        ? Optional<T, 'evidence'>
        : [string, NonNullable<T>] extends [keyof NonNullable<T>, Readonly<Record<string, number>>]
          ? Optional<T, 'scores'>
          : never

type Table = { readonly [K in Kind]: { readonly [F in Exclude<keyof EventOf<K>, 'kind'>]-?: ShapeOf<EventOf<K>[F]> } }

const table: Table = {
  'process-started': { role: 'text', engine: 'text', job: 'text', platform: 'text' },
  listening: { address: 'text' },
  'metrics-served': { address: 'text' },
  progress: { activity: 'text', done: 'number', total: 'number' },
  'peer-joined': { peer: 'text', evidence: 'evidence' },
  'peer-left': { peer: 'text', reason: 'text', error: 'error?' },
  'peer-refused': { address: 'text', error: 'error' },
  'connection-lost': { attempt: 'number', retryInMs: 'number', error: 'error' },
  step: {
    worker: 'number',
    step: 'number',
    examples: 'number',
    loss: 'number',
    iterationMs: 'number',
    computeMs: 'number',
    waitMs: 'number',
  },
  update: {
    step: 'number',
    examples: 'number',
    loss: 'number',
    learningRate: 'number',
    staleness: 'number',
    contributions: 'number',
    applyMs: 'number',
  },
  'update-refused': { worker: 'number', step: 'number', error: 'error' },
  traffic: { peer: 'text', bytesSent: 'number', bytesReceived: 'number' },
  evaluation: { step: 'number', examples: 'number', scores: 'scores' },
  saved: { what: 'text', path: 'text', step: 'number' },
  checkpointed: { step: 'number', bytes: 'number', ms: 'number' },
  resumed: { step: 'number' },
  reassigned: { shard: 'number', from: 'number', to: 'number' },
  exported: { path: 'text', form: 'text', recipients: 'number' },
  'key-awaited': { name: 'text', address: 'text' },
  'key-provisioned': { name: 'text', owner: 'text' },
  warning: { error: 'error' },
  failed: { error: 'error' },
  finished: { steps: 'number', examples: 'number', seconds: 'number' },
}

const maxTextLength = 4096
const maxNameLength = 64
const maxEntries = 64

/** A copy with the fields of its kind alone. What does not fit is a bug: a warning that says where, without what it was, takes its place. */
export function publishable(event: CloisterEvent): CloisterEvent {
  try {
    return copyOf(event)
  } catch (error) {
    return { kind: 'warning', error: publicError(error) }
  }
}

/** An event that another process wrote as JSON; undefined for anything else. */
export function parseEvent(value: unknown): CloisterEvent | undefined {
  try {
    return copyOf(value)
  } catch {
    return undefined
  }
}

function copyOf(value: unknown): CloisterEvent {
  const fields = recordOf(value, 'event')
  const { kind } = fields
  if (typeof kind !== 'string' || !Object.hasOwn(table, kind)) throw new Error('event: expected a known kind')
  const copy: Record<string, unknown> = { kind }
  for (const [name, shape] of Object.entries<string>(table[kind as Kind])) {
    const field = fields[name]
    if (field === undefined && shape.endsWith('?')) continue
    copy[name] = checks[shape.replace('?', '') as keyof typeof checks](field, `event ${kind}, ${name}`)
  }
  return copy as CloisterEvent
}

const checks = {
  number(value: unknown, where: string): number {
    // JSON has no NaN and no infinities: a loss that left the finite numbers comes back as null.
    if (value === null) return Number.NaN
    if (typeof value !== 'number') throw new Error(`${where}: expected a number, got ${nameOfType(value)}`)
    return value
  },
  text(value: unknown, where: string): string {
    if (typeof value !== 'string') throw new Error(`${where}: expected text, got ${nameOfType(value)}`)
    return value.length > maxTextLength ? `${value.slice(0, maxTextLength)}…` : value
  },
  error(value: unknown, where: string): PublicError {
    const { code, message, hint } = recordOf(value, where)
    return {
      code: checks.text(code, `${where}.code`).slice(0, maxNameLength),
      message: checks.text(message, `${where}.message`),
      hint: checks.text(hint, `${where}.hint`),
    }
  },
  evidence(value: unknown, where: string): PeerEvidence {
    const { platform, mrEnclave, mrSigner, tcbStatus, advisories, detail, quoteSha256, file } = recordOf(value, where)
    return {
      platform: checks.text(platform, where),
      ...(mrEnclave !== undefined && { mrEnclave: checks.text(mrEnclave, where) }),
      ...(mrSigner !== undefined && { mrSigner: checks.text(mrSigner, where) }),
      ...(tcbStatus !== undefined && { tcbStatus: checks.text(tcbStatus, where) }),
      ...(advisories !== undefined && { advisories: namesOf(advisories, where) }),
      detail: checks.text(detail, where),
      ...(quoteSha256 !== undefined && { quoteSha256: checks.text(quoteSha256, where) }),
      ...(file !== undefined && { file: checks.text(file, where) }),
    }
  },
  scores(value: unknown, where: string): Readonly<Record<string, number>> {
    const entries = Object.entries(recordOf(value, where))
    if (entries.length > maxEntries) throw new Error(`${where}: expected ${maxEntries} scores at most`)
    return Object.fromEntries(
      entries.map(([name, score]) => {
        if (!/^[A-Za-z][\w.-]{0,63}$/.test(name)) throw new Error(`${where}: expected names of scores, got another`)
        return [name, checks.number(score, where)]
      }),
    )
  },
} as const

function namesOf(value: unknown, where: string): string[] {
  if (!Array.isArray(value)) throw new Error(`${where}: expected a list of names, got ${nameOfType(value)}`)
  return value.slice(0, maxEntries).map((name) => checks.text(name, where).slice(0, maxNameLength))
}

function recordOf(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    throw new Error(`${where}: expected an object, got ${nameOfType(value)}`)
  }
  return value as Record<string, unknown>
}

/** What it is, never what it holds. */
function nameOfType(value: unknown): string {
  if (typeof value !== 'object' || value === null) return typeof value
  return Array.isArray(value) ? 'an array' : ArrayBuffer.isView(value) ? 'a typed array' : 'an object'
}
