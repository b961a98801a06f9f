// SPDX-License-Identifier: Apache-2.0
/**
 * What becomes of pushes: the strategy decides which make an update, and the model is changed, one update at a time. Whatever
 * must not fall between two updates takes its turn here too.
 */
import { publicError } from '../errors.ts'
import type { DataPlan } from './data-plan.ts'
import type { FederationError } from './federation-error.ts'
import type { PushPlace } from './group.ts'
import type { ModelState } from './model-state.ts'
import { PendingUpdates } from './pending-updates.ts'
import type { RunRecord } from './run-record.ts'
import { handedOutAgain, trainingFinished } from './server-ends.ts'
import type { PendingUpdate, ServerOptions } from './server-options.ts'
import type { Following } from './strategies/following.ts'
import type { Decision, Situation, Strategy } from './strategies/strategy.ts'

export interface UpdatesOptions {
  readonly server: Pick<ServerOptions, 'clock' | 'events' | 'group' | 'job' | 'schedule'>
  readonly model: ModelState
  readonly strategy: Strategy<PendingUpdate>
  readonly plan: DataPlan
  readonly record: RunRecord
  readonly expected: () => Situation['expected']
  /** Called after each update, before its pushes are answered. */
  readonly onApplied: () => void
  /** Called with what ends training: a failure of the server itself. */
  readonly onFailure: (error: unknown) => void
}

export class Updates {
  readonly #options: UpdatesOptions
  readonly #pending = new PendingUpdates()
  #turn: Promise<void> = Promise.resolve()
  #over = false
  #cancelReview = (): void => undefined

  constructor(options: UpdatesOptions) {
    this.#options = options
  }

  get isComplete(): boolean {
    const { model, server } = this.#options
    return model.version >= server.job.totalUpdates
  }

  /** Resolves when everything that has been put in turn is done. */
  get turn(): Promise<void> {
    return this.#turn
  }

  /** A push. In synchronous jobs it counts once every server holds it. */
  add(update: PendingUpdate, place: PushPlace): void {
    const { plan, server, strategy } = this.#options
    const { group, job } = server
    const { lease, worker } = update
    this.#pending.add(update)
    const add = (): void =>
      this.inTurn(async () => {
        if (!this.#pending.has(update)) return
        if (group.kind === 'leader' && this.isComplete) this.#drop(update, trainingFinished(job.totalUpdates))
        else if (lease !== undefined && !plan.isCurrent(lease)) {
          this.#drop(update, handedOutAgain(worker, lease))
        } else await this.#carryOut(strategy.add(update, this.#situation()))
        if (group.kind === 'follower' && job.synchronous && this.#pending.has(update)) group.held(place)
      })
    if (group.kind === 'leader' && job.synchronous) group.everywhere(place).then(add, () => undefined)
    else add()
  }

  /** A follower's: what the leader has decided. */
  round(baseVersion: number, workers: readonly number[]): void {
    const strategy = this.#options.strategy as Following<PendingUpdate>
    this.inTurn(() => this.#carryOut(strategy.round(baseVersion, workers)))
  }

  /**
   * Workers came, or shards moved: batches of theirs that are not in the model are handed out again. What was computed of them
   * does not count, even if it waits in the round already. On its way here it may still be: see `add`.
   */
  replan(change: () => void): void {
    const { plan, strategy } = this.#options
    this.inTurn(async () => {
      change()
      for (const update of this.#pending.all) {
        const { lease, worker } = update
        if (lease === undefined || plan.isCurrent(lease) || !strategy.withdraw(update)) continue
        this.#drop(update, handedOutAgain(worker, lease))
      }
    })
  }

  /** Runs after everything that was put in turn before; a failure in it is the server's own and ends training. */
  inTurn(work: () => Promise<void>): void {
    this.#turn = this.#turn.then(work).catch((error: unknown) => this.#options.onFailure(error))
  }

  /** Time has passed, or a worker has gone: the strategy may want to go on with what it has. */
  review(): void {
    const { strategy } = this.#options
    if (!this.#over) this.inTurn(() => this.#carryOut(strategy.review(this.#situation())))
  }

  /** No review from now on. */
  end(): void {
    this.#over = true
    this.#cancelReview()
  }

  dropAll(error: FederationError): void {
    this.#pending.settleAll({ dropped: error })
  }

  #situation(): Situation {
    const { expected, model, server } = this.#options
    return { version: model.version, expected: expected(), now: server.clock.now() }
  }

  /** ④ The only place where the model changes. It runs in turn: two updates cannot interleave. */
  async #carryOut(decision: Decision<PendingUpdate>): Promise<void> {
    const { model, onApplied, plan, record, strategy } = this.#options
    const { clock, events, group, job, schedule } = this.#options.server
    if (decision.kind === 'drop') this.#drop(decision.contribution, decision.error)
    if (decision.kind === 'apply') {
      const [{ contributions, rateFactor }, { version }] = [decision, model]
      const workers = contributions.map(({ worker }) => worker)
      if (group.kind === 'leader' && job.synchronous) group.announceRound(version, workers)
      const [learningRate, startedAt] = [schedule(version) * rateFactor, clock.now()]
      await model.apply(contributions, learningRate)
      const endedAt = clock.now()
      const examples = contributions.reduce((sum, update) => sum + update.examples, 0)
      record.updated(endedAt, examples)
      for (const { lease } of contributions) if (lease !== undefined) plan.settle(lease)
      events({
        kind: 'update',
        step: model.version,
        examples,
        loss: contributions.reduce((sum, update) => sum + (update.loss * update.examples) / examples, 0),
        learningRate,
        staleness: Math.max(...contributions.map(({ baseVersion }) => version - baseVersion)),
        contributions: contributions.length,
        applyMs: endedAt - startedAt,
      })
      onApplied()
      for (const update of contributions) this.#pending.settle(update, { appliedVersion: model.version })
    }
    this.#cancelReview()
    const { dueAt } = strategy
    if (dueAt !== undefined) {
      this.#cancelReview = clock.after(Math.max(0, dueAt - clock.now()), () => this.review())
    }
  }

  #drop(update: PendingUpdate, error: FederationError): void {
    const { model, plan, server } = this.#options
    server.events({ kind: 'update-refused', worker: update.worker, step: model.version, error: publicError(error) })
    const { lease } = update
    // Its batch is not computed again, unless it was handed out again.
    if (lease !== undefined && plan.isCurrent(lease)) plan.settle(lease)
    this.#pending.settle(update, { dropped: error })
  }
}
