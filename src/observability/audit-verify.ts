// SPDX-License-Identifier: Apache-2.0
/**
 * Whether an audit log is what enclaves wrote: its shape, the chain of hashes, each signature, and each start's quote, which the
 * caller judges by a policy of its own. Everything in the file is the host's until then. What is missing at the end shows only
 * against a head that was kept elsewhere.
 */
import { requireHead, requireOrder, splitLines } from './audit-log.ts'
import {
  type AuditBody,
  AuditError,
  type AuditHead,
  isSignedBy,
  lineHash,
  parseRecord,
  type StartRecord,
  startReportData,
} from './audit-record.ts'

export interface AuditVerifyOptions {
  /** Throws unless this quote is over these 64 bytes and from an enclave that is wanted. */
  readonly judge: (start: Extract<AuditBody, StartRecord>, reportData: Uint8Array) => Promise<void>
  /** Kept in a checkpoint, in `result.json`, or by a person. */
  readonly head?: AuditHead | undefined
}

export interface VerifiedAudit {
  readonly records: readonly AuditBody[]
  readonly head: AuditHead
  /** The last process closed its log: otherwise it runs, was killed, or the end was cut away. */
  readonly ended: boolean
}

/** Throws an AuditError that names the first line in which something is wrong. */
export async function verifyAuditLog(bytes: Buffer, { judge, head }: AuditVerifyOptions): Promise<VerifiedAudit> {
  const torn = bytes.length - (bytes.lastIndexOf(10) + 1)
  if (torn > 0) throw malformed(`expected whole lines, got ${torn} bytes behind the last one`)
  const lines = splitLines(bytes)
  const records: AuditBody[] = []
  let start: Extract<AuditBody, StartRecord> | undefined
  for (const [index, line] of lines.entries()) {
    const parsed = parseRecord(line, index + 1)
    const { body } = parsed
    requireOrder(body, index, lines[index - 1])
    if (body.record === 'start') {
      if (start !== undefined && (body.job !== start.job || body.source !== start.source)) {
        throw malformed(
          `line ${index + 1}: expected ${start.source} of job ${start.job}, got ${body.source} of ${body.job}`,
        )
      }
      start = body
    }
    if (start === undefined) throw malformed('line 1: expected the start of a process, got another record')
    if (!isSignedBy(start.publicKey, parsed)) {
      const message = `line ${index + 1}: expected a signature by the key of its start, got another`
      throw new AuditError('audit-signature-invalid', message, {
        hint: 'The line was changed, or written by somebody else.',
      })
    }
    if (body.record === 'start') await judge(body, startReportData(body))
    records.push(body)
  }
  if (records.length === 0) throw malformed('expected an audit log, got an empty file')
  const hashes = lines.map(lineHash)
  if (head !== undefined) requireHead(hashes, head)
  const last = { index: hashes.length - 1, hash: hashes.at(-1)! }
  return { records, head: last, ended: records.at(-1)!.record === 'end' }
}

function malformed(message: string): AuditError {
  return new AuditError('audit-record-malformed', message, {
    hint: 'A process was killed while it wrote, the log was changed or cut, or it is no audit log.',
  })
}
