// SPDX-License-Identifier: Apache-2.0
/**
 * When the things that evidence rests on are valid. The clock of an enclave belongs to the host, who may set it back to make
 * old collateral look current: nothing is accepted before the newest issue date among what was signed, and MonotonicClock keeps
 * time from running back.
 */
import type { PublicError } from '../errors.ts'
import { AttestationError } from './error.ts'

export interface ValidityWindow {
  readonly what: string
  readonly kind: 'certificate' | 'crl' | 'tcb-info' | 'qe-identity'
  /** Milliseconds since 1970, both inclusive. */
  readonly notBefore: number
  readonly notAfter: number
}

export interface ValidityProblem extends PublicError {
  readonly code: `${ValidityWindow['kind']}-${'expired' | 'not-yet-valid'}`
}

/** What is not valid at `nowMs`. Grace extends what Intel reissues every month; it never extends a certificate. */
export function validityProblems(
  windows: readonly ValidityWindow[],
  nowMs: number,
  graceMs: number,
): ValidityProblem[] {
  return windows.flatMap(({ what, kind, notBefore, notAfter }) => {
    const allowedUntil = kind === 'certificate' ? notAfter : notAfter + graceMs
    if (nowMs < notBefore) return [problem(`${kind}-not-yet-valid`, what, 'from', notBefore, nowMs)]
    return nowMs > allowedUntil ? [problem(`${kind}-expired`, what, 'until', notAfter, nowMs)] : []
  })
}

function problem(
  code: ValidityProblem['code'],
  what: string,
  word: 'from' | 'until',
  bound: number,
  nowMs: number,
): ValidityProblem {
  return {
    code,
    message: `Expected ${what} to be valid at ${timeText(nowMs)}, got one valid ${word} ${timeText(bound)}.`,
    hint:
      word === 'until'
        ? 'Fetch fresh collateral (cloister collateral fetch), or allow a grace period in the policy.'
        : 'Check the clock of this machine; evidence of the past is judged with --at.',
  }
}

const timeText = (ms: number): string => new Date(ms).toISOString().replace('.000Z', 'Z')

/** A clock that may be read by an enclave: it refuses to run back behind what signed collateral proved to be past. */
export class MonotonicClock {
  readonly #read: () => number
  readonly #maxSkewMs: number
  #floorMs = 0

  /** `maxSkewMs`: how far the clock may correct itself without being called a liar. */
  constructor(read: () => number, maxSkewMs = 60_000) {
    this.#read = read
    this.#maxSkewMs = maxSkewMs
  }

  /** Something that Intel signed then: the present cannot be earlier. */
  observe(issuedMs: number): void {
    this.#floorMs = Math.max(this.#floorMs, issuedMs)
  }

  now(): number {
    const nowMs = this.#read()
    if (nowMs < this.#floorMs - this.#maxSkewMs) {
      throw new AttestationError(
        'clock-backwards',
        `Expected a time not before ${timeText(this.#floorMs)}, got ${timeText(nowMs)}.`,
        { hint: 'The clock of this host ran backwards or is wrong: set it right and start again.' },
      )
    }
    this.#floorMs = Math.max(this.#floorMs, nowMs)
    return nowMs
  }
}
