// SPDX-License-Identifier: Apache-2.0
/**
 * From a quote to a peer: collateral for its platform, evidence, policy. Used for the quote in a certificate, for the fresh one on
 * the channel, and again for the fresh one whenever collateral changes. Collateral comes through the host, who can withhold
 * it and choose which of Intel's to show: the policy's minimum evaluation number and the clock's floor bound that.
 */
import type { QuoteCollateral } from '../attestation/collateral.ts'
import type { CollateralSource } from '../attestation/collateral-source.ts'
import { type AttestedPeer, authorize } from '../attestation/policy.ts'
import { type Policy, rootFingerprintOf } from '../attestation/policy-format.ts'
import type { Quote } from '../attestation/quote.ts'
import type { MonotonicClock } from '../attestation/validity.ts'
import { reexamineQuote, type TrustedCollateral, trustCollateral } from '../attestation/verify.ts'

/** Bundles whose verification is remembered: one for each kind of platform among the peers, and its successor. */
const maxRemembered = 16

export interface PeerJudgeOptions {
  readonly policy: Policy
  /** What `self` in the policy means: our own MRENCLAVE, hex, from the platform. Undefined outside of an enclave. */
  readonly self: string | undefined
  readonly collateral: CollateralSource
  readonly clock: MonotonicClock
}

export class PeerJudge {
  readonly #options: PeerJudgeOptions
  /** Newest first. */
  #remembered: readonly { readonly collateral: QuoteCollateral; readonly trusted: TrustedCollateral }[] = []

  constructor(options: PeerJudgeOptions) {
    this.#options = options
  }

  /** Throws AttestationError for what is not proven, PolicyError for what is not wanted, and what the source throws. */
  async judge(quote: Quote): Promise<AttestedPeer> {
    const { clock, policy, self, collateral } = this.#options
    const trusted = this.#trust(await collateral.collateralFor(quote.raw))
    const evidence = reexamineQuote(quote, trusted, clock.now())
    clock.observe(evidence.latestIssue)
    return authorize(evidence, policy, { self, now: clock.now() })
  }

  /** Throws a PolicyError unless what was proven about `peer` is still good enough `elapsedMs` after it was verified. */
  reconsider({ evidence }: AttestedPeer, elapsedMs: number): void {
    const { policy, self } = this.#options
    authorize(evidence, policy, { self, now: evidence.verifiedAt + elapsedMs })
  }

  #trust(collateral: QuoteCollateral): TrustedCollateral {
    const known = this.#remembered.find((it) => isSame(it.collateral, collateral))
    if (known) return known.trusted
    const trusted = trustCollateral(collateral, rootFingerprintOf(this.#options.policy))
    this.#remembered = [{ collateral, trusted }, ...this.#remembered].slice(0, maxRemembered)
    return trusted
  }
}

function isSame(one: QuoteCollateral, other: QuoteCollateral): boolean {
  const keys = Object.keys(one) as (keyof QuoteCollateral)[]
  return keys.length === Object.keys(other).length && keys.every((key) => one[key] === other[key])
}
