// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister verify <quote|certificate|host:port> --policy P [--collateral FILE] [--root FILE] [--at TIME] [--json]`: what a data
 * owner can find out about an enclave without joining anything. Exit status 0 accepted, 1 refused, 2 could not be judged.
 */
import { resolve } from 'node:path'
import { parseCollateral, type QuoteCollateral } from '../attestation/collateral.ts'
import { AttestationError } from '../attestation/error.ts'
import { parsePolicy } from '../attestation/policy-format.ts'
import { publicError } from '../errors.ts'
import { RatlsError } from '../ratls/ratls-error.ts'
import { derTags, X509Error } from '../x509/der.ts'
import { splitPem } from '../x509/pem.ts'
import { parseCertificate } from '../x509/read.ts'
import type { CliContext } from './context.ts'
import { type Judgement, judgementText, judgeQuote, unproven } from './judgement.ts'
import { fetchSubject, readInput, readSubject, VerifyError } from './subject.ts'

export interface VerifyOptions {
  readonly policy: string
  readonly collateral?: string
  readonly root?: string
  readonly at?: string
  readonly self?: string
  readonly json?: boolean
}

/** Asked when no bundle is named: a PCCS, wired by the caller. */
export type LookUpCollateral = (quote: Uint8Array) => Promise<QuoteCollateral>

const theirErrors = [AttestationError, RatlsError, X509Error]
const statuses = { accepted: 0, refused: 1, unjudged: 2 } as const

export async function verify(
  context: Pick<CliContext, 'cwd' | 'stdout' | 'now' | 'signal'>,
  options: VerifyOptions,
  subject: string,
  lookUpCollateral?: LookUpCollateral,
): Promise<number> {
  const judgement = await judgeSubject(context, options, subject, lookUpCollateral)
  context.stdout.write(options.json ? `${JSON.stringify(judgement, null, 2)}\n` : judgementText(judgement))
  return statuses[judgement.verdict]
}

/** Nothing escapes as an error: what goes wrong on our side makes the verdict `unjudged`, what the subject brings `refused`. */
async function judgeSubject(
  { cwd, now: clock, signal }: Pick<CliContext, 'cwd' | 'now' | 'signal'>,
  options: VerifyOptions,
  subject: string,
  lookUpCollateral: LookUpCollateral | undefined,
): Promise<Judgement> {
  let now = clock().getTime()
  let side: 'ours' | 'theirs' = 'ours'
  try {
    if (options.at !== undefined) now = parseTime(options.at)
    const policy = parsePolicy(readJson(resolve(cwd, options.policy)))
    const rootFingerprint = options.root === undefined ? undefined : fingerprintOfFile(resolve(cwd, options.root))
    const bundle = options.collateral === undefined ? undefined : readJson(resolve(cwd, options.collateral))
    const bytes = await fetchSubject(subject, cwd, signal)
    side = 'theirs'
    const { quote, reasons } = readSubject(bytes, now)
    // A bundle that lacks or garbles what must be checked is refused like one that contradicts it.
    const collateral = bundle === undefined ? await lookUp(quote, lookUpCollateral) : parseCollateral(bundle)
    return judgeQuote({ quote, collateral, policy, rootFingerprint, self: options.self, now, reasons })
  } catch (thrown) {
    const refused = side === 'theirs' && theirErrors.some((type) => thrown instanceof type)
    return unproven(refused ? 'refused' : 'unjudged', [publicError(thrown)], now)
  }
}

async function lookUp(quote: Uint8Array, lookUpCollateral: LookUpCollateral | undefined): Promise<QuoteCollateral> {
  if (lookUpCollateral) return lookUpCollateral(quote)
  throw new VerifyError('verify-collateral-unknown', 'Expected --collateral or a PCCS to ask, got neither.', {
    hint: 'Name a bundle with --collateral FILE, or configure a PCCS in /etc/sgx_default_qcnl.conf.',
  })
}

function readJson(path: string): unknown {
  const bytes = readInput(path)
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : String(cause)
    const hint =
      'Policies and collateral bundles are JSON files: cloister policy init and cloister collateral fetch write them.'
    throw new VerifyError('verify-json-malformed', `Expected JSON in ${path}: ${got}.`, { hint, cause })
  }
}

/** PEM or DER. */
function fingerprintOfFile(path: string): string {
  const bytes = readInput(path)
  const certificates = bytes[0] === derTags.sequence ? [bytes] : splitPem(bytes.toString('latin1'))
  // Of a chain, the last is the root.
  return parseCertificate(certificates.at(-1)!).fingerprint
}

/** ISO 8601 with a zone, or seconds since 1970. */
function parseTime(text: string): number {
  const isIso = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/.test(text)
  const ms = /^\d{1,11}$/.test(text) ? Number(text) * 1000 : isIso ? Date.parse(text) : Number.NaN
  if (Number.isFinite(ms)) return ms
  throw new VerifyError('verify-time-malformed', `Expected a time for --at, got "${text}".`, {
    hint: 'Write it like 2026-11-22T12:00:00Z, or as seconds since 1970.',
  })
}
