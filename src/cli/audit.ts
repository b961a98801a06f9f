// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister audit verify DIR|FILE --policy FILE`: what enclaves wrote down about a run, checked without this run, offline: chain, signatures,
 * quotes by the reader's own policy, evidence files by their digests, the heads in the servers' results against a cut end.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { parseCollateral } from '../attestation/collateral.ts'
import { type Policy, rootFingerprintOf } from '../attestation/policy-format.ts'
import { type PublicError, publicError } from '../errors.ts'
import { serverName } from '../federation/server-name.ts'
import { type AuditBody, AuditError, type AuditHead } from '../observability/audit-record.ts'
import { type VerifiedAudit, verifyAuditLog } from '../observability/audit-verify.ts'
import { formatEvent } from '../observability/log.ts'
import { type CliContext, exitStatus } from './context.ts'
import { auditDirectory, collateralFile, evidenceDirectory } from './evidence-record.ts'
import { readInput, readJsonInput } from './input.ts'
import { type Judgement, judgeQuote } from './judgement.ts'
import { readPolicy } from './policy.ts'
import { resultName } from './summary.ts'
import { UsageError } from './usage-error.ts'
import { parseTime } from './verify.ts'

export interface AuditOptions {
  readonly policy: string
  readonly collateral?: string
  readonly at?: string
  readonly self?: string
  /** INDEX:SHA256 of a record that the log must have. */
  readonly head?: string
  readonly json?: boolean
}

/** What was found out about one log. */
export interface AuditReport {
  readonly file: string
  readonly verdict: 'verified' | 'refused'
  readonly error: PublicError | null
  readonly head: AuditHead | null
  readonly ended: boolean
  /** Of each start: what its quote proved. */
  readonly starts: readonly Judgement[]
  readonly evidence: { readonly matching: number; readonly missing: readonly string[] }
  readonly records: readonly AuditBody[]
}

type Context = Pick<CliContext, 'cwd' | 'now' | 'stdout'>

export async function verify(context: Context, options: AuditOptions, subject: string): Promise<number> {
  const policy = readPolicy(resolve(context.cwd, options.policy))
  const path = resolve(context.cwd, subject)
  const logs = logsIn(path)
  if (options.head !== undefined && logs.length > 1) {
    throw new UsageError('audit-head-ambiguous', `expected one log for --head, got ${logs.length}`, {
      hint: 'A head is of one log: name its file.',
    })
  }
  const reports: AuditReport[] = []
  for (const file of logs) reports.push(await reportOn(context, options, policy, file))
  for (const file of logsInResults(path)) if (!logs.includes(file)) reports.push(missing(file))
  context.stdout.write(options.json ? `${JSON.stringify(reports, null, 2)}\n` : reports.map(textOf).join(''))
  return reports.every(({ verdict }) => verdict === 'verified') ? exitStatus.ok : exitStatus.failed
}

function logsIn(path: string): string[] {
  if (!existsSync(path) || !statSync(path).isDirectory()) return [path]
  const directory = join(path, auditDirectory)
  const names = existsSync(directory) ? readdirSync(directory).filter((name) => name.endsWith('.jsonl')) : []
  if (names.length > 0) return names.sort().map((name) => join(directory, name))
  throw new AuditError('audit-log-unreadable', `expected logs in ${directory}, got none`, {
    hint: 'Name a run directory, or one log file.',
  })
}

/** Whose heads the results of this run remember: what somebody removed whole is not among the logs. */
function logsInResults(run: string): string[] {
  if (!existsSync(run) || !statSync(run).isDirectory()) return []
  return readdirSync(run)
    .map((name) => /^result(?:-(server\d+))?\.json$/.exec(name))
    .flatMap((match) => (match === null ? [] : (match[1] ?? serverName(0))))
    .map((server) => join(run, auditDirectory, `${server}.jsonl`))
    .filter((file) => headInResult(run, file) !== undefined)
}

function missing(file: string): AuditReport {
  const error = publicError(
    new AuditError(
      'audit-log-missing',
      `expected ${basename(file)}, whose head the result of its server has, got none`,
      {
        hint: 'It was removed or not copied: ask the operator of that host.',
      },
    ),
  )
  const nothing = { head: null, ended: false, starts: [], evidence: { matching: 0, missing: [] }, records: [] }
  return { file, verdict: 'refused', error, ...nothing }
}

async function reportOn(context: Context, options: AuditOptions, policy: Policy, file: string): Promise<AuditReport> {
  const run = dirname(dirname(file))
  const starts: Judgement[] = []
  let verified: VerifiedAudit | undefined
  let evidence: AuditReport['evidence'] = { matching: 0, missing: [] }
  let error: PublicError | null = null
  try {
    verified = await verifyAuditLog(readInput(file), {
      head: options.head === undefined ? headInResult(run, file) : parseHead(options.head),
      judge: async (start, reportData) => {
        const kept = join(run, evidenceDirectory, collateralFile(start.source, start.index))
        const judgement = judgeQuote({
          quote: Buffer.from(start.quote, 'base64'),
          collateral: parseCollateral(readCollateral(context, options, kept)),
          policy,
          rootFingerprint: rootFingerprintOf(policy),
          self: options.self,
          now: judgedAt(context, options, start.time),
        })
        const [refused] = judgement.reasons
        if (refused) throw quoteRefused(start.index + 1, refused)
        if (judgement.reportData !== Buffer.from(reportData).toString('hex')) throw quoteMismatch(start.index + 1)
        starts.push(judgement)
      },
    })
    evidence = checkEvidence(run, verified.records)
  } catch (thrown) {
    // Which file a directory was given for is in the report; what was typed wrongly ends the command.
    if (thrown instanceof UsageError) throw thrown
    error = publicError(thrown)
  }
  return {
    file,
    verdict: error === null ? 'verified' : 'refused',
    error,
    head: verified?.head ?? null,
    ended: verified?.ended ?? false,
    starts,
    evidence,
    records: verified?.records ?? [],
  }
}

function readCollateral({ cwd }: Context, { collateral }: AuditOptions, kept: string): unknown {
  if (collateral !== undefined) {
    return readJsonInput(resolve(cwd, collateral), 'cloister collateral fetch writes bundles.')
  }
  if (existsSync(kept)) return readJsonInput(kept, 'Name another bundle with --collateral FILE.')
  throw new AuditError('audit-collateral-missing', `expected collateral for the quote in ${kept}, got none`, {
    hint: 'Fetch a bundle for this platform, cloister collateral fetch, and name it with --collateral FILE.',
  })
}

/** By collateral that was kept with the log, as of then; by the reader's own, as of now: unless --at says. */
function judgedAt(context: Context, { at, collateral }: AuditOptions, time: string): number {
  if (at !== undefined) return parseTime(at)
  return collateral === undefined ? Date.parse(time) : context.now().getTime()
}

function parseHead(text: string): AuditHead {
  const [, index, hash] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text) ?? []
  if (hash !== undefined) return { index: Number(index), hash }
  throw new UsageError('audit-head-malformed', `expected INDEX:SHA256 for --head, got "${text}"`, {
    hint: 'It is printed by cloister audit verify, and in result.json as audit.',
  })
}

/** Each server writes its head into a result of its own. */
function headInResult(run: string, file: string): AuditHead | undefined {
  const [, index] = /^server(\d*)\.jsonl$/.exec(basename(file)) ?? []
  if (index === undefined) return undefined
  const name = resultName(Number(index))
  const path = join(run, name)
  if (!existsSync(path)) return undefined
  const { audit } = readJsonInput(path, `${name} was changed.`) as { readonly audit?: AuditHead | null }
  return audit ?? undefined
}

/** The quotes that peers were let in by, where they are still there: the log has their digests. */
function checkEvidence(run: string, records: readonly AuditBody[]): AuditReport['evidence'] {
  let matching = 0
  const missing: string[] = []
  for (const record of records) {
    if (record.record !== 'event' || record.event.kind !== 'peer-joined') continue
    const { file, quoteSha256 } = record.event.evidence
    if (file === undefined || quoteSha256 === undefined) continue
    const path = join(run, evidenceDirectory, `${basename(file)}.quote`)
    if (!existsSync(path)) {
      missing.push(path)
      continue
    }
    const got = createHash('sha256').update(readInput(path)).digest('hex')
    if (got !== quoteSha256) {
      throw new AuditError('audit-evidence-mismatch', `${path}: expected SHA-256 ${quoteSha256}, got ${got}`, {
        hint: 'The evidence was replaced after the enclave wrote its digest into the log.',
      })
    }
    matching++
  }
  return { matching, missing }
}

function quoteRefused(line: number, { code, message, hint }: PublicError): AuditError {
  return new AuditError('audit-quote-refused', `line ${line}: ${code}: ${message}`, { hint })
}

function quoteMismatch(line: number): AuditError {
  return new AuditError(
    'audit-quote-mismatch',
    `line ${line}: expected a quote over this key, job and place, got another`,
    {
      hint: 'The quote was taken from elsewhere: the records after it are not by an attested enclave.',
    },
  )
}

function textOf({ file, error, head, ended, records, starts, evidence }: AuditReport): string {
  if (error !== null) return `REFUSED   ${file}\n  ${error.code}: ${error.message}\n    ${error.hint}\n`
  const lines = [`VERIFIED  ${file}: ${records.length} records, head ${head?.index}:${head?.hash}`]
  let start = 0
  for (const body of records)
    lines.push(`  ${body.time} ${described(body, body.record === 'start' ? starts[start++] : undefined)}`)
  if (!ended) lines.push('  NOTE: it has no end: the process runs, was killed, or the end of the log was cut away')
  if (evidence.missing.length > 0) lines.push(`  NOTE: ${evidence.missing.length} files of evidence are not there`)
  return `${lines.join('\n')}\n`
}

function described(body: AuditBody, start: Judgement | undefined): string {
  const lost = 'lost' in body && body.lost > 0 ? ` (${body.lost} records before it were lost)` : ''
  if (body.record === 'event') return `${formatEvent(body.event)}${lost}`
  if (body.record === 'end') return `end${lost}`
  const notice = body.warning === undefined ? '' : `, WARNING ${body.warning}`
  return `start of ${body.source} (${body.role}) on ${body.platform}${notice}, job ${body.job}, MRENCLAVE ${start?.measurements?.mrEnclave}, TCB ${start?.tcbStatus}`
}
