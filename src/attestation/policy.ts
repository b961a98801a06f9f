// SPDX-License-Identifier: Apache-2.0
/**
 * Evidence → peer. `authorize` is the only way to an AttestedPeer, and lets in nobody in whom a rule finds anything that the
 * policy does not accept. INIT and 64-bit mode are no choice of a policy: an enclave without them did not run our code.
 */
import assert from 'node:assert/strict'
import type { EvidenceFacts } from './evidence.ts'
import {
  type Mismatch,
  type MismatchCode,
  type Policy,
  PolicyError,
  rootFingerprintOf,
  rootNameOf,
} from './policy-format.ts'
import { validityProblems } from './validity.ts'
import { type Evidence, isProven } from './verify.ts'

declare const authorizedBrand: unique symbol
/** A peer whose evidence was verified and is wanted. Made by `authorize` and nowhere else. */
export interface AttestedPeer {
  readonly [authorizedBrand]: true
  readonly evidence: Evidence
  /** The root's name in the policy: `intel`, or what the policy calls another. */
  readonly root: string
}

/** The peer, or a PolicyError that lists everything about it that the policy does not accept. */
export function authorize(evidence: Evidence, policy: Policy, context: PolicyContext): AttestedPeer {
  assert(isProven(evidence), 'authorize: evidence that verify.ts did not make')
  const reasons = policyMismatches(evidence, policy, context)
  const [first] = reasons
  if (first) {
    const more = reasons.length > 1 ? ` (and ${reasons.length - 1} more)` : ''
    throw new PolicyError('policy-refused', `${first.message}${more}`, { hint: first.hint, reasons })
  }
  return { evidence, root: rootNameOf(policy) } as Omit<AttestedPeer, typeof authorizedBrand> as AttestedPeer
}

export interface PolicyContext {
  /** MRENCLAVE of the code that judges; undefined outside of an enclave, where `self` accepts nothing. */
  readonly self: string | undefined
  readonly now: number
}

/** All that the policy does not accept, in a fixed order. Judges any facts; only `authorize` lets somebody in. */
export function policyMismatches(facts: EvidenceFacts, policy: Policy, context: PolicyContext): Mismatch[] {
  return [
    ...rootMismatches(facts, policy),
    ...enclaveMismatches(facts, policy, context.self),
    ...attributeMismatches(facts, policy),
    ...tcbMismatches(facts, policy),
    ...platformMismatches(facts, policy),
    ...timeMismatches(facts, policy, context.now),
  ]
}

function rootMismatches({ rootFingerprint }: EvidenceFacts, policy: Policy): Mismatch[] {
  const wanted = rootFingerprintOf(policy)
  if (rootFingerprint === wanted) return []
  return [
    mismatch(
      'root-unwanted',
      `the root "${rootNameOf(policy)}" (${wanted})`,
      rootFingerprint,
      'Evidence of a simulated platform never passes a policy that trusts Intel. Use the policy of the platform that this is.',
    ),
  ]
}

function enclaveMismatches({ measurements: got }: EvidenceFacts, policy: Policy, self: string | undefined): Mismatch[] {
  const { mrEnclave, signer } = policy.enclave
  const mismatches: Mismatch[] = []
  if (mrEnclave && !mrEnclave.some((wanted) => (wanted === 'self' ? self : wanted) === got.mrEnclave)) {
    const wanted = mrEnclave.map((it) => (it === 'self' ? `self (${self ?? 'unknown outside of an enclave'})` : it))
    mismatches.push(
      mismatch(
        'measurement-mismatch',
        `MRENCLAVE ${wanted.join(' or ')}`,
        got.mrEnclave,
        self === undefined && mrEnclave.includes('self')
          ? 'Outside of an enclave `self` is nobody: say with --self, or in the policy, which MRENCLAVE you expect (cloister measure).'
          : 'The peer runs other code: build both from the same sources (cloister measure), or add its MRENCLAVE after review.',
      ),
    )
  }
  if (!signer) return mismatches
  if (got.mrSigner !== signer.mrSigner) {
    const hint = 'The peer is signed by somebody else: add that signer only if you trust all that it signs.'
    mismatches.push(mismatch('signer-mismatch', `MRSIGNER ${signer.mrSigner}`, got.mrSigner, hint))
  }
  if (got.productId !== signer.productId) {
    const hint = 'The peer is another program of this signer: start the right one.'
    mismatches.push(mismatch('product-mismatch', `product id ${signer.productId}`, `${got.productId}`, hint))
  }
  if (got.svn < signer.minimumSvn) {
    const hint = 'The peer runs a version with known weaknesses: update it.'
    mismatches.push(mismatch('svn-too-low', `ISVSVN of at least ${signer.minimumSvn}`, `${got.svn}`, hint))
  }
  return mismatches
}

function attributeMismatches({ attributes: got }: EvidenceFacts, { attributes: allowed }: Policy): Mismatch[] {
  const rules: readonly [boolean, MismatchCode, string, string, string][] = [
    [
      !got.init,
      'enclave-uninitialized',
      'INIT set',
      'clear',
      'No enclave can report itself like that: do not trust this platform.',
    ],
    [!got.mode64Bit, 'enclave-not-64-bit', 'MODE64BIT set', 'clear', 'Run the peer as a 64-bit enclave.'],
    [
      got.debug && !allowed.allowDebug,
      'debug-enclave',
      'DEBUG clear',
      'set',
      'The host can read the memory of a debug enclave: build the peer with sgx.debug = false.',
    ],
    [
      (got.provisionKey || got.licenseKey) && !allowed.allowProvisioningKeys,
      'provisioning-key',
      'no access to provisioning or launch keys',
      [got.provisionKey && 'PROVISION_KEY', got.licenseKey && 'EINITTOKEN_KEY'].filter(Boolean).join(', '),
      'Build the peer without these attributes: it needs neither.',
    ],
  ]
  return rules.filter(([broken]) => broken).map(([, ...rest]) => mismatch(...rest))
}

function tcbMismatches(facts: EvidenceFacts, { tcb }: Policy): Mismatch[] {
  const mismatches: Mismatch[] = []
  if (!tcb.acceptedStatuses.some((accepted) => accepted === facts.tcbStatus)) {
    mismatches.push(
      mismatch(
        'tcb-status-unaccepted',
        `TCB status ${tcb.acceptedStatuses.join(' or ')}`,
        `${facts.tcbStatus} (platform ${facts.platformStatus}, quoting enclave ${facts.qeStatus})`,
        'Update BIOS, microcode and DCAP on the host of the peer; accept the status only after reading its advisories.',
      ),
    )
  }
  for (const advisory of facts.advisories) {
    if (tcb.acceptedAdvisories === 'any' || tcb.acceptedAdvisories.includes(advisory)) continue
    const hint = `Read ${advisory} at intel.com; if it does not matter here, add it to tcb.acceptedAdvisories.`
    mismatches.push(mismatch('advisory-unaccepted', 'a platform without unaccepted advisories', advisory, hint))
  }
  if (facts.tcbEvaluationNumber < tcb.minimumEvaluationNumber) {
    mismatches.push(
      mismatch(
        'tcb-evaluation-too-low',
        `collateral of TCB evaluation ${tcb.minimumEvaluationNumber} or later`,
        `${facts.tcbEvaluationNumber}`,
        'Fetch newer collateral (update=early at the PCCS): older evaluations do not know newer weaknesses.',
      ),
    )
  }
  return mismatches
}

function platformMismatches({ platform }: EvidenceFacts, { platforms }: Policy): Mismatch[] {
  if (platforms === 'any') return []
  const pinned = platforms.some((pin) =>
    'ppid' in pin ? pin.ppid === platform.ppid : pin.instanceId === platform.instanceId,
  )
  if (pinned) return []
  const got = `PPID ${platform.ppid}, instance ${platform.instanceId ?? 'none'}`
  const hint = 'Add this machine to the platforms of the policy if it is one of yours.'
  return [mismatch('platform-not-pinned', `one of ${platforms.length} pinned platforms`, got, hint)]
}

/** More than a clock that is being corrected explains. */
const maxSkewMs = 60_000

function timeMismatches(facts: EvidenceFacts, policy: Policy, now: number): Mismatch[] {
  const graceMs = policy.collateral.graceHours * 3_600_000
  const mismatches: Mismatch[] = validityProblems(facts.validity, now, graceMs)
  const ageMs = now - facts.verifiedAt
  const { maximumAgeMinutes } = policy.freshness
  if (ageMs > maximumAgeMinutes * 60_000) {
    const hint = 'Verify the quote again, or let the peer send a fresh one.'
    const got = `${Math.round(ageMs / 60_000)} minutes ago`
    mismatches.push(mismatch('evidence-stale', `evidence verified within ${maximumAgeMinutes} minutes`, got, hint))
  }
  if (ageMs < -maxSkewMs) {
    const got = new Date(facts.verifiedAt).toISOString()
    const hint = 'The clock of this host ran backwards: set it right and start again.'
    mismatches.push(mismatch('evidence-from-future', 'evidence verified in the past', got, hint))
  }
  return mismatches
}

const mismatch = (code: MismatchCode, expected: string, got: string, hint: string): Mismatch => ({
  code,
  message: `Expected ${expected}, got ${got}.`,
  hint,
})
