// SPDX-License-Identifier: Apache-2.0
/** Pushes in the strategy's hands or on their way there: each is answered once, and its memory is given back then. */
import type { PushOutcome } from './protocol/remote-worker.ts'
import type { PendingUpdate } from './server-options.ts'

export class PendingUpdates {
  readonly #all = new Set<PendingUpdate>()

  add(update: PendingUpdate): void {
    this.#all.add(update)
  }

  get all(): readonly PendingUpdate[] {
    return [...this.#all]
  }

  has(update: PendingUpdate): boolean {
    return this.#all.has(update)
  }

  settle(update: PendingUpdate, outcome: PushOutcome): void {
    this.#all.delete(update)
    update.values.release()
    update.answer(outcome)
  }

  settleAll(outcome: PushOutcome): void {
    for (const update of this.#all) this.settle(update, outcome)
  }
}
