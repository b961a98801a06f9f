// SPDX-License-Identifier: Apache-2.0
/**
 * The audit log of one process: who joined on what evidence, who was refused and why, what was saved, resumed, released, which
 * keys came. Fed from events, so it can hold nothing that an event cannot. Each start makes a key that its quote attests, and goes
 * on from the last line of the process before it. The host has the file, and can cut its end: see docs/audit.md.
 */
import { generateKeyPairSync, sign } from 'node:crypto'
import { closeSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import {
  type AuditBody,
  type AuditContent,
  AuditError,
  type AuditHead,
  encodeRecord,
  isAudited,
  lineHash,
  nothingBefore,
  parseRecord,
  type StartRecord,
  startReportData,
} from './audit-record.ts'
import type { EventSink } from './events.ts'

export interface AuditLogOptions extends Pick<StartRecord, 'source' | 'role' | 'job' | 'platform' | 'warning'> {
  readonly path: string
  /** A quote of this enclave over these 64 bytes. */
  readonly quote: (reportData: Uint8Array) => Promise<Uint8Array>
  readonly now: () => Date
  /** Told once when the log can no longer be written: the run itself goes on, and the log says what it lacks. */
  readonly onFailure: (error: unknown) => void
}

export interface AuditLog {
  readonly emit: EventSink
  /** Belongs into the sealed checkpoint and into the result. */
  readonly head: AuditHead
  /** Of this start: where it is in the log, and what attests it. */
  readonly start: { readonly index: number; readonly quote: Uint8Array }
  /** Throws unless the log went through this head, which a checkpoint remembers: its end was cut away otherwise. */
  requireHead(head: AuditHead): void
  close(): void
}

/** What must be on disk before the process goes on: the rest may be lost with the host. */
const durable: ReadonlySet<string> = new Set([
  'saved',
  'checkpointed',
  'resumed',
  'exported',
  'key-provisioned',
  'failed',
  'finished',
])

export async function openAuditLog(options: AuditLogOptions): Promise<AuditLog> {
  const { path, now, onFailure, source, role, job, platform, warning } = options
  const { hashes, torn, wholeBytes } = readEarlier(path)
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const file = openSync(path, 'a')
  let length = wholeBytes
  ftruncateSync(file, length)
  let lost = 0
  let failed = false
  let closed = false

  const place = () => ({ index: hashes.length, previous: hashes.at(-1) ?? nothingBefore, time: now().toISOString() })
  const write = (body: ReturnType<typeof place> & AuditContent): void => {
    const line = encodeRecord(body, (message) => sign(null, message, privateKey))
    const bytes = Buffer.concat([line, Buffer.from('\n')])
    for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written)
    length += bytes.length
    hashes.push(lineHash(line))
  }
  const tryWrite = (content: AuditContent): void => {
    try {
      // Whatever an attempt that failed left behind.
      if (lost > 0) ftruncateSync(file, length)
      write({ ...place(), ...content })
      lost = 0
    } catch (error) {
      lost++
      if (!failed) onFailure(error)
      failed = true
    }
  }

  const key = publicKey.export({ type: 'spki', format: 'der' }).subarray(-32).toString('hex')
  const start = { record: 'start', source, role, job, platform, ...(warning === undefined ? {} : { warning }) } as const
  const unquoted = { ...place(), ...start, publicKey: key, quote: '', torn }
  const quote = await options.quote(startReportData(unquoted))
  write({ ...unquoted, quote: Buffer.from(quote).toString('base64') })
  fsyncSync(file)

  return {
    start: { index: unquoted.index, quote },
    get head() {
      return { index: hashes.length - 1, hash: hashes.at(-1)! }
    },
    emit(event) {
      if (closed || !isAudited(event)) return
      tryWrite({ record: 'event', event, lost })
      if (durable.has(event.kind)) attempt(() => fsyncSync(file))
    },
    requireHead: (head) => requireHead(hashes, head),
    close() {
      if (closed) return
      closed = true
      tryWrite({ record: 'end', lost })
      attempt(() => fsyncSync(file))
      closeSync(file)
    },
  }
}

/** `hashes` of all lines, in order. */
export function requireHead(hashes: readonly string[], { index, hash }: AuditHead): void {
  if (hashes[index] === hash) return
  const got =
    hashes[index] === undefined ? `a log of ${hashes.length} records` : `record ${index} with ${hashes[index]}`
  throw new AuditError('audit-log-truncated', `expected record ${index} with SHA-256 ${hash}, got ${got}`, {
    hint: 'The end of the log was cut away or replaced after this was remembered. Ask the operator of this host.',
  })
}

/** A full disk shows at the next write; here it must not end the run. */
function attempt(run: () => void): void {
  try {
    run()
  } catch {
    // The write before it told what is wrong.
  }
}

interface Earlier {
  readonly hashes: string[]
  /** Of whole lines, and of the unfinished one behind them. */
  readonly wholeBytes: number
  readonly torn: number
}

function readEarlier(path: string): Earlier {
  mkdirSync(dirname(path), { recursive: true })
  const bytes = contentOf(path)
  const end = bytes.lastIndexOf(10) + 1
  const lines = splitLines(bytes.subarray(0, end))
  try {
    for (const [index, line] of lines.entries()) {
      requireOrder(parseRecord(line, index + 1).body, index, lines[index - 1])
    }
  } catch (cause) {
    throw new AuditError(
      'audit-log-damaged',
      `${path}: expected the log of an earlier start, got: ${messageOf(cause)}`,
      {
        hint: 'Keep the file as evidence and move it away: a new log then begins, which shows that it does.',
        cause,
      },
    )
  }
  return { hashes: lines.map(lineHash), wholeBytes: end, torn: bytes.length - end }
}

/** The record is the one that follows the line before it. */
export function requireOrder(body: AuditBody, index: number, before: Uint8Array | undefined): void {
  const previous = before === undefined ? nothingBefore : lineHash(before)
  if (body.index === index && body.previous === previous) return
  const [expected, got] = [`record ${index} after ${previous}`, `record ${body.index} after ${body.previous}`]
  throw new AuditError('audit-chain-broken', `line ${index + 1}: expected ${expected}, got ${got}`, {
    hint: 'Lines were removed, inserted, swapped or changed.',
  })
}

/** Without line breaks; `bytes` ends with one, or is empty. */
export function splitLines(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = []
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(10, start)
    lines.push(bytes.subarray(start, end))
    start = end + 1
  }
  return lines
}

function contentOf(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw new AuditError('audit-log-unreadable', `expected to read ${path}, got: ${messageOf(cause)}`, {
      hint: 'Check the path and that this user may read it.',
      cause,
    })
  }
}

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
