// SPDX-License-Identifier: Apache-2.0
/**
 * A strategy decides which updates go into the model when. It does no input or output and never waits: the server asks it
 * at every push, whenever workers come or go, and when the time it named has come. To add one: a file here and a line in
 * the wiring table.
 */
import { FederationError } from '../federation-error.ts'

/** What a strategy sees of a push. */
export interface Contribution {
  readonly worker: number
  /** Version of the parameters that it was computed with; never above the model's. */
  readonly baseVersion: number
}

/** The server's state at the moment of the question. */
export interface Situation {
  /** Updates that the model has seen. */
  readonly version: number
  /** Workers that may still push: connected, or not yet joined. A worker that was lost is not among them. */
  readonly expected: ReadonlySet<number>
  /** Milliseconds of the server's clock. */
  readonly now: number
}

export type Decision<C extends Contribution> =
  | { readonly kind: 'wait' }
  /** Aggregate these and apply them at the schedule's rate times `rateFactor`. */
  | { readonly kind: 'apply'; readonly contributions: readonly C[]; readonly rateFactor: number }
  /** It will not be applied: the push that was added, or an older one of the same worker that this one replaces. */
  | { readonly kind: 'drop'; readonly contribution: C; readonly error: FederationError }

export interface Strategy<C extends Contribution> {
  readonly name: string
  add(contribution: C, situation: Situation): Decision<C>
  /** Without a new push: workers came or went, or `dueAt` has passed. */
  review(situation: Situation): Decision<C>
  /** Gives up a push whose batch is computed anew, and says whether it held it. */
  withdraw(contribution: C): boolean
  /** When to ask for a review at the latest, on the server's clock. */
  readonly dueAt: number | undefined
}

export const wait = { kind: 'wait' } as const

export function pushReplaced(worker: number): FederationError {
  return new FederationError('push-replaced', `worker ${worker} came back and pushes anew`, {
    hint: 'Nothing to do: the newer push counts.',
  })
}
