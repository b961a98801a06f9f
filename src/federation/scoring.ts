// SPDX-License-Identifier: Apache-2.0
/** Evaluations under way: each is of one version, asks every worker once and waits for each a bounded time. */
import type { EventSink } from '../observability/events.ts'
import type { Clock } from './clock.ts'
import { Evaluation, type Scored, scoresOf } from './evaluation.ts'
import { FederationError } from './federation-error.ts'
import type { Sums } from './metrics.ts'
import type { Snapshot } from './model-state.ts'

export interface ScoringOptions {
  /** From the request to the last worker's scores. */
  readonly evaluationMs: number
  /** Whoever is too late is not waited for, and not wanted any more. */
  readonly expel: (worker: number, error: FederationError) => void
  readonly clock: Clock
  readonly events: EventSink
}

export class Scoring {
  readonly #options: ScoringOptions
  readonly #evaluations = new Set<Evaluation>()

  constructor(options: ScoringOptions) {
    this.#options = options
  }

  /** Takes over the snapshot; resolves when all of `workers` have scored it or are gone. */
  async score(snapshot: Snapshot, workers: Iterable<number>): Promise<Scored> {
    const { clock, evaluationMs, events, expel } = this.#options
    const evaluation = new Evaluation(snapshot, workers)
    this.#evaluations.add(evaluation)
    const cancel = clock.after(evaluationMs, () => {
      for (const worker of evaluation.awaited) {
        expel(worker, scoresLate(evaluationMs))
        evaluation.drop(worker)
      }
    })
    await evaluation.done
    cancel()
    this.#evaluations.delete(evaluation)
    const scored = scoresOf(evaluation.sums())
    if (scored.examples > 0) events({ kind: 'evaluation', step: snapshot.version, ...scored })
    return scored
  }

  /** What this worker is to score next. */
  of(worker: number): Evaluation | undefined {
    return [...this.#evaluations].find(({ awaited }) => awaited.has(worker))
  }

  add(worker: number, version: number, sums: Sums): void {
    const evaluation = this.of(worker)
    if (evaluation === undefined || evaluation.snapshot.version !== version) {
      const expected = evaluation === undefined ? 'no scores' : `scores of version ${evaluation.snapshot.version}`
      throw new FederationError('scores-version-mismatch', `expected ${expected}, got scores of version ${version}`, {
        hint: 'The worker does not follow the protocol: compare its version with ours.',
      })
    }
    evaluation.add(worker, sums)
  }

  /** The worker is gone. */
  drop(worker: number): void {
    for (const evaluation of this.#evaluations) evaluation.drop(worker)
  }
}

function scoresLate(evaluationMs: number): FederationError {
  return new FederationError('scores-late', `expected scores within ${evaluationMs} ms, got none`, {
    hint: 'Give this worker fewer held-out examples or more threads; see its log for what it was doing.',
  })
}
