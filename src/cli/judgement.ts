// SPDX-License-Identifier: Apache-2.0
/**
 * One quote judged by one policy, for `cloister verify`: a verdict with all reasons, and everything that was proven on the way to
 * it, so that a data owner sees what a refused peer is too. What was not proven is null, never what the quote claims.
 */
import type { QuoteCollateral } from '../attestation/collateral.ts'
import { AttestationError } from '../attestation/error.ts'
import type { EvidenceFacts } from '../attestation/evidence.ts'
import { authorize } from '../attestation/policy.ts'
import { type Policy, PolicyError, rootFingerprintOf, rootNameOf } from '../attestation/policy-format.ts'
import { examineQuote, trustCollateral } from '../attestation/verify.ts'
import { type PublicError, publicError } from '../errors.ts'

export interface Judgement {
  readonly verdict: 'accepted' | 'refused' | 'unjudged'
  readonly tcbStatus: EvidenceFacts['tcbStatus'] | null
  readonly platformStatus: EvidenceFacts['platformStatus'] | null
  readonly qeStatus: EvidenceFacts['qeStatus'] | null
  readonly advisories: readonly string[]
  readonly measurements: EvidenceFacts['measurements'] | null
  readonly attributes: EvidenceFacts['attributes'] | null
  readonly platform: EvidenceFacts['platform'] | null
  readonly reportData: string | null
  readonly tcbEvaluationNumber: number | null
  /** The root that everything was proven under: its name in the policy and its fingerprint. */
  readonly root: { readonly name: string; readonly sha256: string } | null
  /** ISO 8601: when it was judged, and when the first thing that it rests on ends. */
  readonly judgedAt: string
  readonly validUntil: string | null
  readonly reasons: readonly PublicError[]
}

export interface Case {
  readonly quote: Uint8Array
  readonly collateral: QuoteCollateral
  readonly policy: Policy
  /** The root to prove under: the policy's, or another, which the policy will then refuse. */
  readonly rootFingerprint: string
  readonly self: string | undefined
  readonly now: number
  /** What was already found wrong around the quote, such as a certificate that expired. */
  readonly reasons?: readonly PublicError[]
}

export function judgeQuote({
  quote,
  collateral,
  policy,
  rootFingerprint: sha256,
  self,
  now,
  reasons = [],
}: Case): Judgement {
  const wanted = rootFingerprintOf(policy)
  try {
    const evidence = examineQuote(quote, trustCollateral(collateral, sha256), now)
    const proven = {
      tcbStatus: evidence.tcbStatus,
      platformStatus: evidence.platformStatus,
      qeStatus: evidence.qeStatus,
      advisories: evidence.advisories,
      measurements: evidence.measurements,
      attributes: evidence.attributes,
      platform: evidence.platform,
      reportData: evidence.reportData,
      tcbEvaluationNumber: evidence.tcbEvaluationNumber,
      root: { name: sha256 === wanted ? rootNameOf(policy) : 'not the root of the policy', sha256 },
      judgedAt: timeText(now),
      validUntil: timeText(evidence.earliestExpiry),
    }
    const all = [...reasons, ...refusals(() => authorize(evidence, policy, { self, now }))]
    return { verdict: all.length === 0 ? 'accepted' : 'refused', ...proven, reasons: all }
  } catch (thrown) {
    if (!(thrown instanceof AttestationError)) throw thrown
    return unproven('refused', [...reasons, publicError(thrown)], now)
  }
}

/** Refused before anything was proven, or not judged at all. */
export function unproven(verdict: 'refused' | 'unjudged', reasons: readonly PublicError[], now: number): Judgement {
  return {
    verdict,
    tcbStatus: null,
    platformStatus: null,
    qeStatus: null,
    advisories: [],
    measurements: null,
    attributes: null,
    platform: null,
    reportData: null,
    tcbEvaluationNumber: null,
    root: null,
    judgedAt: timeText(now),
    validUntil: null,
    reasons,
  }
}

/** For people: the verdict first, then why, then what was proven. */
export function judgementText(judgement: Judgement): string {
  const { verdict, reasons, measurements, platform } = judgement
  const lines = [{ accepted: 'ACCEPTED', refused: 'REFUSED', unjudged: 'NOT JUDGED' }[verdict]]
  for (const { code, message, hint } of reasons) lines.push(`  ${code}: ${message}`, `    ${hint}`)
  if (measurements && platform) {
    lines.push(
      `MRENCLAVE   ${measurements.mrEnclave}`,
      `MRSIGNER    ${measurements.mrSigner}, product ${measurements.productId}, SVN ${measurements.svn}`,
      `debug       ${judgement.attributes?.debug ? 'yes: the host reads its memory' : 'no'}`,
      `TCB         ${judgement.tcbStatus} (platform ${judgement.platformStatus}, quoting enclave ${judgement.qeStatus}), evaluation ${judgement.tcbEvaluationNumber}`,
      `advisories  ${judgement.advisories.join(', ') || 'none'}`,
      `platform    FMSPC ${platform.fmspc}, PPID ${platform.ppid}, instance ${platform.instanceId ?? 'none'}`,
      `root        ${judgement.root?.name} (${judgement.root?.sha256})`,
      `judged at   ${judgement.judgedAt}; valid until ${judgement.validUntil}`,
    )
  }
  return `${lines.join('\n')}\n`
}

function refusals(authorizing: () => unknown): readonly PublicError[] {
  try {
    authorizing()
    return []
  } catch (thrown) {
    if (thrown instanceof PolicyError && thrown.code === 'policy-refused') return thrown.reasons
    throw thrown
  }
}

const timeText = (ms: number): string => new Date(ms).toISOString()
