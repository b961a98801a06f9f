// SPDX-License-Identifier: Apache-2.0
/**
 * Connected peers, judged again whenever collateral changes and at half of the age that the policy allows evidence. Whoever
 * falls out of the policy is withdrawn, mid-connection. That nothing could be learnt (no collateral to be had, a clock that
 * ran back) is no judgement and only a warning; but the host decides both, so what was last proven ages meanwhile by a
 * monotonic timer, and when it is older than the policy allows, the peer is withdrawn all the same.
 */
import { AttestationError } from '../attestation/error.ts'
import type { AttestedPeer } from '../attestation/policy.ts'
import { PolicyError } from '../attestation/policy-format.ts'
import { publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import type { AttestedCredentials } from './credentials.ts'

export interface PeerWatchOptions {
  readonly credentials: Pick<AttestedCredentials, 'reverify' | 'reconsider'>
  /** The policy's freshness. */
  readonly maximumAgeMinutes: number
  /** Milliseconds since some moment; never runs back, unlike the clock of the host. */
  readonly elapsedMs: () => number
  /** Hears of judgements that could not be made. */
  readonly report: EventSink
}

interface Watched {
  /** Weak: a peer that nobody holds any more is not judged again. */
  readonly peer: WeakRef<AttestedPeer>
  readonly controller: AbortController
  /** The newest judgement that let it stay, and when that was. */
  latest: AttestedPeer
  atMs: number
}

const minuteMs = 60_000
/** Longer ones overflow a timer, and would notice an expiry late. */
const maxPeriodMs = 24 * 60 * minuteMs

export class PeerWatch {
  readonly #options: PeerWatchOptions
  readonly #watched = new Set<Watched>()
  readonly #signals = new WeakMap<AttestedPeer, AbortSignal>()
  readonly #timer: NodeJS.Timeout

  /** `close` it, or judging goes on. */
  constructor(options: PeerWatchOptions) {
    this.#options = options
    const halfMs = (options.maximumAgeMinutes * minuteMs) / 2
    const periodMs = Math.min(Math.max(halfMs, minuteMs), maxPeriodMs)
    this.#timer = setInterval(() => void this.reverify(), periodMs).unref()
  }

  /** `withdrawn` aborts, with the error as its reason, when the peer must be dropped. */
  signalFor(peer: AttestedPeer): { withdrawn: AbortSignal; isNew: boolean } {
    const known = this.#signals.get(peer)
    if (known !== undefined) return { withdrawn: known, isNew: false }
    const controller = new AbortController()
    // A copy: the peer itself would hold on to the peer.
    const latest = { ...peer }
    this.#watched.add({ peer: new WeakRef(peer), controller, latest, atMs: this.#options.elapsedMs() })
    this.#signals.set(peer, controller.signal)
    return { withdrawn: controller.signal, isNew: true }
  }

  /** Judges all connected peers now. */
  async reverify(): Promise<void> {
    await Promise.all([...this.#watched].map((watched) => this.#judge(watched)))
  }

  close(): void {
    clearInterval(this.#timer)
    this.#watched.clear()
  }

  async #judge(watched: Watched): Promise<void> {
    const peer = watched.peer.deref()
    if (peer === undefined) {
      this.#watched.delete(watched)
      return
    }
    const { credentials, elapsedMs, report } = this.#options
    const startedMs = elapsedMs()
    try {
      watched.latest = await credentials.reverify(peer)
      watched.atMs = startedMs
    } catch (error) {
      if (isJudgement(error)) return this.#withdraw(watched, error)
      report({ kind: 'warning', error: publicError(error) })
      try {
        credentials.reconsider(watched.latest, elapsedMs() - watched.atMs)
      } catch (outdated) {
        this.#withdraw(watched, outdated)
      }
    }
  }

  #withdraw(watched: Watched, reason: unknown): void {
    this.#watched.delete(watched)
    watched.controller.abort(reason)
  }
}

/** What was read about the peer speaks against it. A clock that ran back says nothing about anybody but our own host. */
function isJudgement(error: unknown): boolean {
  if (error instanceof PolicyError) return true
  return error instanceof AttestationError && error.code !== 'clock-backwards'
}
