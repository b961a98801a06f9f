// SPDX-License-Identifier: Apache-2.0
/**
 * The parameter server: its side of the six steps; ④, what becomes of pushes, is in updates.ts. Each worker has a session that answers what it asks, as it comes;
 * the model is changed in one place only, one update at a time.
 *
 * Connections come authenticated from the listener: nothing here is reached by a peer that was not. The host decides when
 * bytes arrive or a connection breaks, and sees sizes and times. A worker may send anything: it is checked before it
 * counts, the worker is told why, and the others go on.
 */
import type { AttestedPeer } from '../attestation/policy.ts'
import { toBfloat16 } from '../models/bfloat16.ts'
import { type AdmissionRules, rulesOf, verifyHello } from './admission.ts'
import { Attendance } from './attendance.ts'
import { DataPlan, type Lease } from './data-plan.ts'
import { Deferred } from './deferred.ts'
import type { Scored } from './evaluation.ts'
import { Farewell } from './farewell.ts'
import { FederationError } from './federation-error.ts'
import type { Command } from './group.ts'
import { another, type ModelState, type Parameters } from './model-state.ts'
import { Preparing } from './preparing.ts'
import type { Pull, Push, PushOutcome, RemoteWorker } from './protocol/remote-worker.ts'
import type { Hello } from './protocol/worker-claims.ts'
import type { Arrival } from './reception.ts'
import { RunRecord } from './run-record.ts'
import type { Progress } from './saved-state.ts'
import { Saver } from './saver.ts'
import { Scoring } from './scoring.ts'
import { serverStopping } from './server-ends.ts'
import { serverName } from './server-name.ts'
import type { PendingUpdate, ServerOptions, ServerResult } from './server-options.ts'
import { remoteWorkerOf, Session } from './session.ts'
import { TensorPool } from './tensor-set.ts'
import { Updates } from './updates.ts'

/** One epoch: from the newest step that all servers have to the end of training, or until a server of the job is lost. */
export class Server<Peer extends AttestedPeer> {
  readonly #options: ServerOptions<Peer>
  readonly #model: ModelState
  readonly #plan: DataPlan
  readonly #preparing: Preparing
  readonly #saver: Saver
  /** Memory for what workers push. */
  readonly #pushes: TensorPool
  readonly #attendance: Attendance<Peer>
  readonly #scoring: Scoring
  readonly #record: RunRecord
  readonly #updates: Updates
  readonly #started = new Deferred<void>()
  /** Final scores; rejects when the server can't go on. */
  readonly #scored = new Deferred<Scored>()
  /** The same, once every server has on disk what came of training: then workers may go. */
  readonly #concluded = new Deferred<Scored>()
  #heldOut: Scored = { examples: 0, scores: {} }
  #leaderIsDone = false

  constructor(options: ServerOptions<Peer>, model: ModelState, step: number, saved: Progress | undefined) {
    const { checkpoints, clock, createStrategy, events, group, job, limits, preparation } = options
    this.#options = options
    this.#model = model
    this.#pushes = new TensorPool(options.engine, model.manifest, options.layout.transfer)
    this.#plan = new DataPlan(job.workers, saved?.positions)
    this.#preparing = new Preparing(preparation, job.workers, saved?.prepared)
    this.#saver = new Saver({ checkpoints, begunAt: step, leads: group.kind === 'leader', clock, events })
    this.#attendance = new Attendance<Peer>({
      plan: this.#plan,
      workers: job.workers,
      moveShardsAfterMs: job.moveShardsAfterMs,
      replan: (change) => this.#updates.replan(change),
      // A follower goes when its leader goes.
      withoutWorkersMs: group.kind === 'leader' ? limits.withoutWorkersMs : undefined,
      serve: (session) => this.#serve(session),
      onLeft: (worker) => this.#left(worker),
      onDeserted: (error) => this.#scored.reject(error),
      clock,
      events,
    })
    const expel = (worker: number, error: FederationError): void => this.#attendance.expel(worker, error)
    this.#scoring = new Scoring({ evaluationMs: limits.evaluationMs, expel, clock, events })
    this.#record = new RunRecord(saved)
    this.#updates = new Updates({
      server: options,
      model,
      strategy: createStrategy(),
      plan: this.#plan,
      record: this.#record,
      expected: () => this.#attendance.expected,
      onApplied: () => this.#applied(),
      onFailure: (error) => this.#scored.reject(error),
    })
  }

  async run(): Promise<void> {
    const { events, group, release, signal } = this.#options
    const stop = (): void => this.#stop()
    signal.addEventListener('abort', stop)
    if (signal.aborted) stop()
    group.broken.catch((error: unknown) => this.#scored.reject(error))
    if (group.kind === 'follower') void group.listen((command) => this.#obey(command))
    else if (this.#updates.isComplete) this.#evaluate()
    let scattered = false
    try {
      this.#heldOut = await this.#scored.promise
      this.#updates.end()
      await this.#conclude()
      this.#concluded.resolve(this.#heldOut)
      await this.#attendance.endOrderly()
      const { examples, seconds } = this.#record
      events({ kind: 'finished', steps: this.#model.version, examples, seconds })
    } catch (error) {
      scattered = error instanceof FederationError && error.code === 'servers-scattered'
      this.#concluded.reject(error)
      throw error
    } finally {
      signal.removeEventListener('abort', stop)
      this.#updates.end()
      await this.#attendance.breakAll()
      await this.#updates.turn
      this.#updates.dropAll(serverStopping())
      await this.#saver.idle()
      if (!scattered) {
        await this.#save()
        await release(this.#model)
        if (group.kind === 'leader')
          await group.complete({ step: this.#model.version, stopped: !this.#updates.isComplete })
      }
      this.#pushes.close()
      await this.#model.close()
    }
  }

  /** A server that is lost before it has the last step takes it with it: then all go back, while workers are still there. */
  async #conclude(): Promise<void> {
    const { group } = this.#options
    if (group.kind !== 'leader') return
    await this.#updates.turn
    await this.#saver.idle()
    await this.#save()
    const isDurable = this.#saver.durableStep === this.#model.version
    // Rejects if one is lost by now; a full disk, say, does not hold the end up.
    if (this.#updates.isComplete && !isDurable) await Promise.race([group.broken, undefined])
  }

  get result(): ServerResult {
    const { examples, seconds, workers } = this.#record
    // A follower's own updates do not say: in asynchronous mode those of server 0 count.
    const isDone = this.#options.group.kind === 'leader' ? this.#updates.isComplete : this.#leaderIsDone
    const [reason, version] = [isDone ? 'complete' : 'stopped', this.#model.version] as const
    return { reason, version, examples, seconds, heldOut: this.#heldOut, workers }
  }

  /** For workers, and servers, that come when training is complete and everything is saved. */
  farewell(lateWorkersMs: number): Farewell {
    const { clock, events, group, job, signal } = this.#options
    const [{ version }, { scores }] = [this.#model, this.#heldOut]
    const workers = Array.from({ length: job.workers }, (_, worker) => worker)
    const missing = [
      ...workers.filter((worker) => !this.#attendance.heard.has(worker)).map((worker) => `worker${worker}`),
      ...(group.kind === 'leader' ? group.unheard : []).map(serverName),
    ]
    return new Farewell({ rules: this.#rules, version, scores, missing, lateWorkersMs, clock, events, signal })
  }

  /** One connection from its hello to its end. */
  attend(arrival: Arrival<Peer>, hello: Hello): Promise<void> {
    const remote = remoteWorkerOf(this.#options, arrival, this.#pushes)
    const { name } = this.#options.describe(arrival.connection.peer)
    return this.#attendance.attend(remote, name, () => this.#admit(remote, hello))
  }

  /** ① The connection proves who the worker is; its Hello says which job, data plan and shard it works on. */
  #admit(remote: RemoteWorker<Peer>, hello: Hello): Session<Peer> {
    const { describe, events } = this.#options
    const { evidence, workerIndex, withdrawn } = describe(remote.connection.peer)
    const inPlace = this.#attendance.sessionOf(hello.worker)
    verifyHello(hello, { ...this.#rules, workerIndex, sessionInPlace: inPlace?.key })
    const session = new Session(remote, hello, withdrawn)
    const { name, worker } = session
    const { examples, dataSource } = hello
    this.#record.joined({ worker, name, evidence, examples, dataSource }, hello.planDigest)
    this.#attendance.enter(session)
    events({ kind: 'peer-joined', peer: name, evidence })
    return session
  }

  get #rules(): AdmissionRules {
    return rulesOf(this.#options, this.#record.planDigest)
  }

  /** Answers what the worker asks; answers overlap. Ends when the worker was told that training is over, and left. */
  async #serve(session: Session<Peer>): Promise<void> {
    const { group, job } = this.#options
    const { remote, worker } = session
    const leads = group.kind === 'leader'
    if (leads) {
      await this.#preparing.with(remote, worker)
      await this.#updates.turn // It may have a new place in the plan.
    }
    const task = leads ? this.#leaseFor(session) : undefined
    const [{ totalUpdates }, { version }, { durableStep }] = [job, this.#model, this.#saver]
    await remote.welcome({ version, totalUpdates, durableStep, task })
    if (this.#attendance.present.length >= job.minimumToStart) this.#started.resolve()
    await session.requests((request) => {
      if (request.kind === 'scores') this.#scoring.add(worker, request.version, request.sums)
      else if (request.kind === 'push')
        this.#contribute(session, request.push) // ③ after ② over there
      else this.#answer(session, request.pull).catch((error: unknown) => session.expel(error)) // ⑤
    })
  }

  /** ⑤ at once if asynchronous, at round's end if not. */
  async #answer(session: Session<Peer>, pull: Pull): Promise<void> {
    const { clock, group } = this.#options
    const { remote, worker } = session
    if (pull.evaluate) {
      const evaluation = this.#scoring.of(worker)
      await this.#send(session, pull, evaluation === undefined ? this.#model.snapshot() : another(evaluation.snapshot))
      return
    }
    // Its pushes from before this pull are in the parameters. Who pulls ahead computes meanwhile and waits for nothing.
    await session.settled()
    if (group.kind === 'leader') await this.#started.promise
    // It went away meanwhile, and may be back: what it gets next is the new session's to say.
    if (this.#attendance.sessionOf(worker) !== session) return
    if (group.kind === 'leader') {
      const evaluation = this.#scoring.of(worker)
      if (evaluation !== undefined) {
        await remote.evaluate(pull, evaluation.snapshot.version)
        return
      }
      if (this.#updates.isComplete) {
        const { scores } = await this.#concluded.promise
        await session.sendHome(this.#model.version, scores)
        return
      }
    }
    this.#record.assigned(clock.now())
    await this.#send(session, pull, this.#model.toTrainWith())
  }

  async #send(session: Session<Peer>, pull: Pull, parameters: Parameters): Promise<void> {
    const { group, layout } = this.#options
    try {
      const rows = layout.tables.map(({ name, width }, table) => {
        const ids = pull.rows[table]!
        const values = new Float32Array(ids.length * width)
        const places = this.#model.tables.get(name)!.gather(ids, values, { create: !pull.evaluate })
        session.remote.remember(pull, table, places)
        return layout.transfer === 'bfloat16' && !pull.evaluate ? toBfloat16(values) : values
      })
      const task = group.kind === 'leader' && !pull.evaluate ? this.#leaseFor(session) : undefined
      await session.remote.parameters(pull, parameters, rows, { task, durableStep: this.#saver.durableStep })
    } finally {
      parameters.release()
    }
  }

  #leaseFor(session: Session<Peer>): Lease {
    const lease = this.#plan.next(session.worker)
    session.leases.push(lease)
    return lease
  }

  #contribute(session: Session<Peer>, push: Push): void {
    const { worker } = session
    if (this.#attendance.sessionOf(worker) !== session) {
      push.values.release() // Expelled or replaced while the push was on its way.
      return
    }
    const answer = new Deferred<PushOutcome>()
    session.promise(push.pull, answer.promise)
    const lease = session.leases.shift()
    const update: PendingUpdate = { ...push, worker, lease, answer: (outcome) => answer.resolve(outcome) }
    this.#updates.add(update, { worker, session: session.key, pull: push.pull })
  }

  /** What the leader says, in its order. */
  #obey(command: Command): void {
    const { group } = this.#options
    if (group.kind !== 'follower') return
    if (command.kind === 'complete') {
      this.#leaderIsDone = !command.stopped
      this.#updates.inTurn(async () => this.#scored.resolve({ examples: 0, scores: {} }))
    } else if (command.kind === 'round') {
      this.#updates.round(command.baseVersion, command.workers)
    } else if (command.kind === 'durable') this.#saver.declare(command.step)
    else {
      this.#updates.inTurn(async () => {
        const saved = this.#saver.save(this.#model, command.step, this.#progress, () => Promise.resolve())
        if (saved === undefined) group.saved(command.step, 'another save was under way')
        else void saved.then((failure) => group.saved(command.step, failure))
      })
    }
  }

  /** The worker no longer takes part: its batches are handed out again, to it or to whoever gets its shard. */
  #left(worker: number): void {
    this.#scoring.drop(worker)
    this.#updates.review()
  }

  /** What an update makes due. Followers hear of it from their leader. */
  #applied(): void {
    const { group, job } = this.#options
    if (group.kind !== 'leader') return
    const { version } = this.#model
    const due = (every: number): boolean => every > 0 && version % every === 0
    if (this.#updates.isComplete || due(job.evaluateEvery)) this.#evaluate()
    if (due(job.saveEvery) || (job.saveEveryMs > 0 && this.#saver.sinceMs >= job.saveEveryMs)) void this.#save()
  }

  /** Scores the model as it is now, while training goes on; the last one ends training. */
  #evaluate(): void {
    const final = this.#updates.isComplete
    void this.#scoring.score(this.#model.snapshot(), this.#attendance.present).then((scored) => {
      if (final) this.#scored.resolve(scored)
    })
  }

  #stop(): void {
    this.#attendance.expelAll(serverStopping())
    this.#scored.resolve({ examples: 0, scores: {} })
  }

  async #save(): Promise<void> {
    const [{ group }, step] = [this.#options, this.#model.version]
    // A follower saves when the leader says so, under the leader's step.
    if (group.kind !== 'leader') return
    const failure = await this.#saver.save(this.#model, step, this.#progress, () => group.save(step))
    if (failure === '') group.declareDurable(step)
  }

  get #progress(): Progress {
    const { examples, planDigest, seconds, workers } = this.#record
    const { positions } = this.#plan
    const [version, prepared, auditHead] = [this.#model.version, this.#preparing.saved, this.#options.audit?.head]
    return { version, examples, seconds, positions, planDigest, workers, prepared, auditHead }
  }
}
