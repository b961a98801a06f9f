// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister verify <quote|certificate|host:port> --policy P [--collateral FILE] [--root FILE] [--at TIME] [--json]`: what a data
 * owner can find out about an enclave without joining anything. Exit status 0 accepted, 1 refused, 2 could not be judged.
 */
import { resolve } from 'node:path'
import { parseCollateral } from '../attestation/collateral.ts'
import { AttestationError } from '../attestation/error.ts'
import { rootFingerprintOf } from '../attestation/policy-format.ts'
import { publicError } from '../errors.ts'
import { RatlsError } from '../ratls/ratls-error.ts'
import { X509Error } from '../x509/der.ts'
import { chooseService, openService, rootFingerprintOfFile, type ServiceOptions } from './collateral-service.ts'
import type { CliContext } from './context.ts'
import { readJsonInput } from './input.ts'
import { type Judgement, judgementText, judgeQuote, unproven } from './judgement.ts'
import { readPolicy } from './policy.ts'
import { fetchSubject, readSubject, VerifyError } from './subject.ts'

export interface VerifyOptions extends ServiceOptions {
  readonly policy: string
  readonly collateral?: string
  readonly root?: string
  readonly at?: string
  readonly self?: string
  readonly json?: boolean
}

type Context = Pick<CliContext, 'cwd' | 'env' | 'now' | 'stdout' | 'stderr' | 'signal'>

const theirErrors = [AttestationError, RatlsError, X509Error]
const statuses = { accepted: 0, refused: 1, unjudged: 2 } as const

export async function verify(context: Context, options: VerifyOptions, subject: string): Promise<number> {
  const judgement = await judgeSubject(context, options, subject)
  context.stdout.write(options.json ? `${JSON.stringify(judgement, null, 2)}\n` : judgementText(judgement))
  return statuses[judgement.verdict]
}

/** Nothing escapes as an error: what goes wrong on our side makes the verdict `unjudged`, what the subject brings `refused`. */
async function judgeSubject(context: Context, options: VerifyOptions, subject: string): Promise<Judgement> {
  const { cwd, signal } = context
  let now = context.now().getTime()
  let side: 'ours' | 'theirs' = 'ours'
  try {
    if (options.at !== undefined) now = parseTime(options.at)
    const policy = readPolicy(resolve(cwd, options.policy))
    const root = options.root === undefined ? undefined : rootFingerprintOfFile(resolve(cwd, options.root))
    const rootFingerprint = root ?? rootFingerprintOf(policy)
    const bundle =
      options.collateral === undefined
        ? undefined
        : readJsonInput(resolve(cwd, options.collateral), 'cloister collateral fetch writes bundles.')
    const bytes = await fetchSubject(subject, cwd, signal)
    side = 'theirs'
    const { quote, reasons } = readSubject(bytes, now)
    // A bundle that lacks or garbles what must be checked is refused like one that contradicts it.
    const collateral =
      bundle === undefined ? await lookUp(context, options, rootFingerprint, quote) : parseCollateral(bundle)
    return judgeQuote({ quote, collateral, policy, rootFingerprint, self: options.self, now, reasons })
  } catch (thrown) {
    const refused = side === 'theirs' && theirErrors.some((type) => thrown instanceof type)
    return unproven(refused ? 'refused' : 'unjudged', [publicError(thrown)], now)
  }
}

/** From the PCCS that the options or this machine's configuration name. */
async function lookUp(context: Context, options: VerifyOptions, rootFingerprint: string, quote: Uint8Array) {
  const { config } = await chooseService(context, options)
  const client = openService(context, config, rootFingerprint)
  try {
    return await client.collateralFor(quote)
  } finally {
    client.close()
  }
}

/** ISO 8601 with a zone, or seconds since 1970. */
export function parseTime(text: string): number {
  const isIso = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/.test(text)
  const ms = /^\d{1,11}$/.test(text) ? Number(text) * 1000 : isIso ? Date.parse(text) : Number.NaN
  if (Number.isFinite(ms)) return ms
  throw new VerifyError('verify-time-malformed', `Expected a time for --at, got "${text}".`, {
    hint: 'Write it like 2026-11-22T12:00:00Z, or as seconds since 1970.',
  })
}
