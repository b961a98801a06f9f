// SPDX-License-Identifier: Apache-2.0
/**
 * The parameter server: its side of the six steps, whole. Each worker has a session that runs through them in order; the
 * model is changed in one place only, one update at a time.
 *
 * Connections come authenticated from the listener: nothing here is reached by a peer that was not. The host decides when
 * bytes arrive or a connection breaks, and sees sizes and times. A worker may send anything: it is checked before it
 * counts, the worker is told why, and the others go on.
 */

import type { AttestedPeer } from '../attestation/policy.ts'
import { publicError } from '../errors.ts'
import type { CloisterEvent } from '../observability/events.ts'
import type { Connection } from '../transport/connection.ts'
import { verifyHello } from './admission.ts'
import { Deferred } from './deferred.ts'
import { Evaluation, type Scored, scoresOf } from './evaluation.ts'
import { FederationError } from './federation-error.ts'
import type { ServerMessage, WorkerMessage } from './protocol/messages.ts'
import { type Push, type PushOutcome, RemoteWorker } from './protocol/remote-worker.ts'
import type { PendingUpdate, ServerLimits, ServerOptions, ServerResult, WorkerSummary } from './server-options.ts'
import type { Decision, Situation } from './strategies/strategy.ts'
import { TensorSet } from './tensor-set.ts'

type WorkerConnection<Peer> = Connection<Peer, ServerMessage, WorkerMessage>

interface Session<Peer> {
  readonly remote: RemoteWorker<Peer>
  readonly worker: number
  readonly name: string
  readonly key: Uint8Array
  /** Rejects with the reason when the server no longer wants this worker. */
  readonly expelled: Deferred<never>
}

/** Resolves when training is complete or stopped; throws when it can't go on. What was learnt is saved in each case. */
export async function runServer<Peer extends AttestedPeer>(options: ServerOptions<Peer>): Promise<ServerResult> {
  return await new Server(options).run()
}

class Server<Peer extends AttestedPeer> {
  readonly #options: ServerOptions<Peer>
  /** Workers in training, by index. */
  readonly #sessions = new Map<number, Session<Peer>>()
  /** Were in training and are not any more. */
  readonly #lost = new Set<number>()
  /** Every open connection and what is done on it. */
  readonly #attending = new Map<WorkerConnection<Peer>, Promise<void>>()
  /** Those of them whose orderly end the server waits for: of admitted workers that did nothing wrong. */
  readonly #welcome = new Set<WorkerConnection<Peer>>()
  readonly #evaluations = new Set<Evaluation>()
  /** In the strategy's hands or on their way there. */
  readonly #pending = new Set<PendingUpdate>()
  /** Final scores; rejects when the server can't go on. */
  readonly #scored = new Deferred<Scored>()
  #over = false
  #turn: Promise<void> = Promise.resolve()
  #saving: Promise<void> | undefined
  #cancelReview = (): void => undefined
  #cancelGivingUp = (): void => undefined
  #examples = 0
  /** Training begins with the first assignment and ends with the last update: neither waiting for workers nor the final scores count. */
  #trainingSince: number | undefined
  /** Without an update no time has passed. */
  #lastUpdateAt: number | undefined
  /** The first worker's; the server sees no data and cannot make a plan of its own. */
  #planDigest: Uint8Array | undefined
  readonly #roster = new Map<number, WorkerSummary>()

  constructor(options: ServerOptions<Peer>) {
    this.#options = options
  }

  async run(): Promise<ServerResult> {
    const { listener, model, events, signal } = this.#options
    const stop = (): void => this.#stop()
    signal.addEventListener('abort', stop)
    if (signal.aborted) stop()
    const accepting = this.#accept()
    this.#giveUpWithoutWorkers()
    if (this.#complete) this.#evaluate()
    try {
      const heldOut = await this.#scored.promise
      this.#over = true
      this.#hangUp((connection) => !this.#welcome.has(connection))
      await Promise.all(this.#attending.values())
      const version = model.version
      const seconds = this.#lastUpdateAt === undefined ? 0 : (this.#lastUpdateAt - this.#trainingSince!) / 1000
      events({ kind: 'finished', steps: version, examples: this.#examples, seconds })
      const workers = [...this.#roster.values()].sort((a, b) => a.worker - b.worker)
      const reason = this.#complete ? 'complete' : 'stopped'
      return { reason, version, examples: this.#examples, seconds, heldOut, workers }
    } finally {
      signal.removeEventListener('abort', stop)
      this.#cancelReview()
      this.#cancelGivingUp()
      this.#over = true
      this.#hangUp(() => true)
      await Promise.all([listener.close(), accepting, ...this.#attending.values()])
      await this.#turn
      for (const update of this.#pending) this.#settle(update, { dropped: stopping() })
      await this.#saving
      await this.#save()
    }
  }

  async #accept(): Promise<void> {
    try {
      for await (const connection of this.#options.listener.connections) {
        if (this.#over) connection.destroy()
        else this.#attending.set(connection, this.#attend(connection))
      }
    } catch (error) {
      this.#scored.reject(error)
    }
  }

  #hangUp(which: (connection: WorkerConnection<Peer>) => boolean): void {
    for (const connection of this.#attending.keys()) if (which(connection)) connection.destroy()
  }

  /** One connection from beginning to end; whatever happens on it ends it and nothing else. */
  async #attend(connection: WorkerConnection<Peer>): Promise<void> {
    const { describe, events } = this.#options
    const remote = new RemoteWorker(connection)
    let { name } = describe(connection.peer)
    let session: Session<Peer> | undefined
    try {
      session = await this.#admit(remote)
      name = session.name
      await Promise.race([this.#train(session), session.expelled.promise])
      this.#dismiss(session, { kind: 'peer-left', peer: name, reason: 'finished' })
    } catch (thrown) {
      const error = publicError(thrown)
      const [isLost, hasLeft] = [error.code === 'peer-lost', error.code === 'worker-left']
      const reason = isLost || hasLeft ? 'lost' : 'refused'
      if (session === undefined) events({ kind: 'peer-refused', address: name, error })
      else if (this.#sessions.get(session.worker) === session) {
        this.#dismiss(session, { kind: 'peer-left', peer: name, reason, error })
      } else events({ kind: 'peer-left', peer: name, reason: 'replaced' })
      if (error.code !== 'server-stopping') this.#welcome.delete(connection)
      if (isLost) connection.destroy()
      else if (hasLeft) await remote.close()
      else await remote.refuse(thrown)
    }
    events({ kind: 'traffic', peer: name, bytesSent: connection.bytesSent, bytesReceived: connection.bytesReceived })
    this.#attending.delete(connection)
    this.#welcome.delete(connection)
  }

  /** ① The connection proves who the worker is; its Hello says which job, data plan and shard it works on. */
  async #admit(remote: RemoteWorker<Peer>): Promise<Session<Peer>> {
    const { clock, describe, events, job, limits } = this.#options
    const late = new Deferred<never>()
    const cancel = clock.after(limits.helloMs, () => late.reject(helloLate(limits)))
    const hello = await Promise.race([remote.hello(), late.promise]).finally(cancel)
    const { evidence, workerIndex, withdrawn } = describe(remote.connection.peer)
    const inPlace = this.#sessions.get(hello.worker)
    verifyHello(hello, {
      jobDigest: job.digest,
      planDigest: this.#planDigest,
      workers: job.workers,
      workerIndex,
      sessionInPlace: inPlace?.key,
    })
    this.#planDigest ??= hello.planDigest
    const { worker, examples, dataSource } = hello
    const name = `worker${worker}`
    this.#roster.set(worker, { worker, name, evidence, examples, dataSource })
    const session = { remote, worker, name, key: hello.session, expelled: new Deferred<never>() }
    const expel = (): void => session.expelled.reject(withdrawn?.reason)
    if (withdrawn?.aborted) expel()
    withdrawn?.addEventListener('abort', expel)
    this.#sessions.set(worker, session)
    this.#welcome.add(remote.connection)
    this.#lost.delete(worker)
    this.#cancelGivingUp()
    inPlace?.remote.connection.destroy()
    events({ kind: 'peer-joined', peer: name, evidence })
    return session
  }

  async #train(session: Session<Peer>): Promise<void> {
    const { remote, worker } = session
    const { clock, engine, job, model } = this.#options
    await remote.welcome(model.manifest, model.version, job.totalUpdates)
    for (;;) {
      const evaluation = [...this.#evaluations].find(({ awaited }) => awaited.has(worker))
      if (evaluation !== undefined) {
        await remote.assign('evaluate', evaluation.snapshot)
        evaluation.add(worker, await remote.scores(evaluation.snapshot.version))
        continue
      }
      if (this.#complete) break
      this.#trainingSince ??= clock.now()
      const snapshot = model.snapshot()
      await remote.assign('train', snapshot).finally(snapshot.release) // ⑤ at once if asynchronous, at round's end if not
      const rules = { assignedVersion: snapshot.version, batchSize: job.batchSize }
      const push = await remote.push(rules, () => TensorSet.allocate(engine, model.manifest)) // ③ after ② over there
      const outcome = await remote.during(this.#contribute(session, push)) // ④
      await remote.answer(outcome)
    }
    const { scores } = await remote.during(this.#scored.promise)
    await remote.finish(model.version, scores)
  }

  #contribute(session: Session<Peer>, push: Push): Promise<PushOutcome> {
    const { job, strategy } = this.#options
    const { worker } = session
    const answer = new Deferred<PushOutcome>()
    if (this.#sessions.get(worker) !== session) {
      // Expelled or replaced while the push was on its way.
      push.values.release()
      return answer.promise
    }
    const update: PendingUpdate = { ...push, worker, answer: (outcome) => answer.resolve(outcome) }
    this.#pending.add(update)
    this.#inTurn(async () => {
      if (this.#complete) this.#drop(update, finished(job.totalUpdates))
      else await this.#carryOut(strategy.add(update, this.#situation()))
    })
    return answer.promise
  }

  /** ④ The only place where the model changes. It runs in turn: two updates cannot interleave. */
  async #carryOut(decision: Decision<PendingUpdate>): Promise<void> {
    const { clock, events, job, model, schedule, strategy } = this.#options
    if (decision.kind === 'drop') this.#drop(decision.contribution, decision.error)
    if (decision.kind === 'apply') {
      const { contributions, rateFactor } = decision
      const version = model.version
      const learningRate = schedule(version) * rateFactor
      const startedAt = clock.now()
      await model.apply(contributions, learningRate)
      this.#lastUpdateAt = clock.now()
      const examples = contributions.reduce((sum, update) => sum + update.examples, 0)
      this.#examples += examples
      events({
        kind: 'update',
        step: model.version,
        loss: contributions.reduce((sum, update) => sum + (update.loss * update.examples) / examples, 0),
        learningRate,
        staleness: Math.max(...contributions.map(({ baseVersion }) => version - baseVersion)),
        contributions: contributions.length,
        applyMs: this.#lastUpdateAt - startedAt,
      })
      const due = (every: number): boolean => every > 0 && model.version % every === 0
      if (this.#complete || due(job.evaluateEvery)) this.#evaluate()
      if (due(job.saveEvery)) this.#saveBeside()
      for (const update of contributions) this.#settle(update, { appliedVersion: model.version })
    }
    this.#cancelReview()
    if (strategy.dueAt !== undefined) {
      this.#cancelReview = clock.after(Math.max(0, strategy.dueAt - clock.now()), () => this.#review())
    }
  }

  #settle(update: PendingUpdate, outcome: PushOutcome): void {
    this.#pending.delete(update)
    update.values.release()
    update.answer(outcome)
  }

  #drop(update: PendingUpdate, error: FederationError): void {
    const { events, model } = this.#options
    events({ kind: 'update-refused', worker: update.worker, step: model.version, error: publicError(error) })
    this.#settle(update, { dropped: error })
  }

  /** Runs after everything that was put in turn before; a failure in it is the server's own and ends training. */
  #inTurn(work: () => Promise<void>): void {
    this.#turn = this.#turn.then(work).catch((error: unknown) => this.#scored.reject(error))
  }

  #review(): void {
    if (!this.#over) this.#inTurn(() => this.#carryOut(this.#options.strategy.review(this.#situation())))
  }

  #situation(): Situation {
    const { clock, job, model } = this.#options
    const everyone = Array.from({ length: job.workers }, (_, index) => index)
    const expected = new Set(everyone.filter((index) => !this.#lost.has(index)))
    return { version: model.version, expected, now: clock.now() }
  }

  get #complete(): boolean {
    return this.#options.model.version >= this.#options.job.totalUpdates
  }

  /** The worker no longer takes part: nobody waits for it, its shard is missing until it comes back. */
  #dismiss(session: Session<Peer>, event: CloisterEvent): void {
    this.#sessions.delete(session.worker)
    this.#lost.add(session.worker)
    this.#options.events(event)
    for (const evaluation of this.#evaluations) evaluation.drop(session.worker)
    this.#review()
    if (this.#sessions.size === 0) this.#giveUpWithoutWorkers()
  }

  #giveUpWithoutWorkers(): void {
    const { clock, limits } = this.#options
    this.#cancelGivingUp()
    this.#cancelGivingUp = clock.after(limits.withoutWorkersMs, () => this.#scored.reject(gone(limits)))
  }

  /** Scores the model as it is now, while training goes on; the last one ends training. */
  #evaluate(): void {
    const { clock, events, limits, model } = this.#options
    const final = this.#complete
    const evaluation = new Evaluation(model.snapshot(), this.#sessions.keys())
    this.#evaluations.add(evaluation)
    const cancel = clock.after(limits.evaluationMs, () => {
      for (const worker of evaluation.awaited) {
        this.#sessions.get(worker)?.expelled.reject(scoresLate(limits))
        evaluation.drop(worker)
      }
    })
    void evaluation.done.then(() => {
      cancel()
      this.#evaluations.delete(evaluation)
      const scored = scoresOf(evaluation.sums())
      if (scored.examples > 0) events({ kind: 'evaluation', step: evaluation.snapshot.version, ...scored })
      if (final) this.#scored.resolve(scored)
    })
  }

  #stop(): void {
    for (const { expelled } of this.#sessions.values()) expelled.reject(stopping())
    this.#scored.resolve({ examples: 0, scores: {} })
  }

  /** Training does not wait for the disk; while one save is under way no other begins. */
  #saveBeside(): void {
    this.#saving ??= this.#save()
      .catch((error: unknown) => this.#options.events({ kind: 'warning', error: publicError(error) }))
      .finally(() => {
        this.#saving = undefined
      })
  }

  async #save(): Promise<void> {
    const snapshot = this.#options.model.snapshot()
    await this.#options.save(snapshot).finally(snapshot.release)
  }
}

function helloLate({ helloMs }: ServerLimits): FederationError {
  return new FederationError('hello-late', `expected a Hello within ${helloMs} ms, got none`, {
    hint: 'The worker connected and said nothing: see its log, or the network between.',
  })
}

function scoresLate({ evaluationMs }: ServerLimits): FederationError {
  return new FederationError('scores-late', `expected scores within ${evaluationMs} ms, got none`, {
    hint: 'Give this worker fewer held-out examples or more threads; see its log for what it was doing.',
  })
}

function gone({ withoutWorkersMs }: ServerLimits): FederationError {
  return new FederationError('workers-gone', `expected a worker within ${withoutWorkersMs} ms, got none`, {
    hint: 'Start workers, or see their logs for why they left. The model is saved as it is.',
  })
}

function finished(totalUpdates: number): FederationError {
  return new FederationError('training-finished', `expected ${totalUpdates} updates in all, got one more`, {
    hint: 'Nothing to do: other workers were faster.',
  })
}

function stopping(): FederationError {
  return new FederationError('server-stopping', 'expected the server to go on, got its stop', {
    hint: 'Somebody stopped the server. Workers wait for it to come back for the time that they were given.',
  })
}
