// SPDX-License-Identifier: Apache-2.0
/**
 * Before training: what the workers' data must agree on (vocabularies, means), made inside the leader from what each worker
 * contributes. Parts are at most 1 MiB; what they say is the data set's matter.
 */

export interface PreparationServer {
  begin(worker: number): PreparationInput
  /** Once every worker has contributed. */
  result(): Iterable<Uint8Array>
  /** A result of before, as saved. */
  restore(parts: Iterable<Uint8Array>): void
}

export interface PreparationInput {
  accept(part: Uint8Array): void
  end(): void
}

export interface PreparationWorker {
  contribution(): AsyncIterable<Uint8Array>
  begin(): PreparationInput
}
