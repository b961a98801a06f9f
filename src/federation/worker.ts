// SPDX-License-Identifier: Apache-2.0
/**
 * A worker: its side of the six steps, whole. It holds its shard, computes in its enclave, and gives away nothing but
 * updates and sums, to servers that have proven what they are.
 *
 * `connect` authenticates before it resolves. The host decides when bytes arrive or a connection breaks: then the worker
 * waits and joins all servers again under the same session, until `reconnectForMs` have passed without them.
 */
import type { AttestedPeer } from '../attestation/policy.ts'
import type { Engine } from '../engine/engine.ts'
import { type PublicError, publicError } from '../errors.ts'
import type { EventSink, PeerEvidence } from '../observability/events.ts'
import type { Connection } from '../transport/connection.ts'
import { type Clock, pause } from './clock.ts'
import type { Scores } from './evaluation.ts'
import { FederationError } from './federation-error.ts'
import { Fleet, type FleetAnswer, type FleetLayout, PulledModel } from './fleet.ts'
import { manifestOfServer } from './placement.ts'
import type { PreparationWorker } from './preparation.ts'
import { lost } from './protocol/message-reader.ts'
import { type ServerMessage, unexpected, type WorkerMessage } from './protocol/messages.ts'
import { type Joined, RemoteServer } from './protocol/remote-server.ts'
import type { PushOutcome, Task } from './protocol/remote-worker.ts'
import type { Hello } from './protocol/worker-claims.ts'
import { serverName } from './server-name.ts'
import { type ComputedUpdate, type PreparedBatch, scoreAll, type Training } from './training.ts'

export interface WorkerOptions<Peer extends AttestedPeer = AttestedPeer> {
  readonly connect: (server: number, signal: AbortSignal) => Promise<Connection<Peer, WorkerMessage, ServerMessage>>
  /** `withdrawn`: aborted, with the error as its reason, when the server is no longer acceptable. */
  readonly describe: (peer: Peer) => { evidence: PeerEvidence; withdrawn?: AbortSignal }
  /** Which failures of `connect` are worth another attempt: a server that is not there, not one that proved unacceptable. */
  readonly mayRetry: (error: unknown) => boolean
  readonly hello: Omit<Hello, 'server' | 'placementDigest'>
  readonly engine: Engine
  readonly layout: FleetLayout
  readonly training: Training
  /** All servers of the job go from version to version together. */
  readonly synchronous: boolean
  /** Takes the parameters of the next step while this one is computed. */
  readonly prefetch: boolean
  readonly preparation?: PreparationWorker
  /** What this worker was told to be on disk; a leader that knows less has been set back. */
  readonly newestSeen?: NewestStep
  /** The job lets servers come back older than that. */
  readonly acceptRollback?: boolean
  /** Without a server the worker gives up after this. */
  readonly reconnectForMs: number
  readonly clock: Clock
  readonly events: EventSink
  /** Leaves early. */
  readonly signal: AbortSignal
}

export interface NewestStep {
  /** Undefined when it was told of none. */
  readonly step: number | undefined
  remember(step: number): Promise<void>
}

export interface WorkerResult {
  readonly reason: 'complete' | 'stopped'
  /** Updates that this worker computed. */
  readonly steps: number
  readonly examples: number
  /** Over the held-out examples of all workers; empty when stopped. */
  readonly scores: Scores
}

const firstRetryMs = 250
const longestRetryMs = 5_000

/** Resolves at the end of training or when stopped; throws when the worker can't go on. */
export async function runWorker<Peer extends AttestedPeer>(options: WorkerOptions<Peer>): Promise<WorkerResult> {
  return await new Worker(options).run()
}

class Worker<Peer extends AttestedPeer> {
  readonly #options: WorkerOptions<Peer>
  /** The one that is computed with, and the one that is pulled into. */
  #models: PulledModel[] = []
  #scored: PulledModel | undefined
  #examples = 0
  #nextPull = 0
  /** Since when there has been no server, and how often it was tried. */
  #alone: { since: number; attempts: number }

  constructor(options: WorkerOptions<Peer>) {
    this.#options = options
    this.#alone = { since: options.clock.now(), attempts: 0 }
  }

  async run(): Promise<WorkerResult> {
    const { clock, events, training } = this.#options
    const startedAt = clock.now()
    try {
      const scores = await this.#untilTheEnd()
      const [steps, examples, seconds] = [training.steps, this.#examples, (clock.now() - startedAt) / 1000]
      events({ kind: 'finished', steps, examples, seconds })
      return { reason: scores === undefined ? 'stopped' : 'complete', steps, examples, scores: scores ?? {} }
    } finally {
      for (const model of [...this.#models, this.#scored]) model?.dispose()
    }
  }

  /** The final scores; nothing when stopped. */
  async #untilTheEnd(): Promise<Scores | undefined> {
    const { signal } = this.#options
    while (!signal.aborted) {
      try {
        return await this.#withServers()
      } catch (error) {
        if (signal.aborted) break
        await this.#waitForServer(error)
      }
    }
    return undefined
  }

  /** One connection to each server, from the handshakes to the end of training. */
  async #withServers(): Promise<Scores> {
    const { describe, events, layout, preparation, signal, synchronous } = this.#options
    const connections = await this.#connect() // ① both sides have proven what they are
    const servers = connections.map((connection, server) => {
      const manifest = manifestOfServer(layout.manifest, layout.placement, server)
      return new RemoteServer(connection, {
        manifest,
        tables: layout.tables,
        preparation: server === 0 ? preparation : undefined,
      })
    })
    const peers = connections.map((connection) => describe(connection.peer))
    const withdrawn = AbortSignal.any(peers.flatMap((peer) => peer.withdrawn ?? []))
    let leaving: Promise<unknown> | undefined
    const leave = (reason: PublicError): void => {
      leaving ??= Promise.all(servers.map((server) => server.leave(reason)))
    }
    const stop = (): void => leave(stopped())
    const withdraw = (): void => {
      for (const connection of connections) connection.destroy()
    }
    signal.addEventListener('abort', stop)
    if (withdrawn.aborted) withdraw()
    withdrawn.addEventListener('abort', withdraw)
    try {
      const joined = await this.#join(servers)
      for (const [server, { evidence }] of peers.entries()) {
        events({ kind: 'peer-joined', peer: serverName(server), evidence })
      }
      this.#alone = { since: Number.POSITIVE_INFINITY, attempts: 0 }
      const numberPull = (): number => this.#nextPull++
      const scores =
        'scores' in joined
          ? joined.scores
          : await this.#train(new Fleet(servers, layout, { synchronous, numberPull }), joined)
      await servers[0]!.close()
      leaving ??= Promise.all(servers.slice(1).map((follower) => follower.leave(finished())))
      return scores
    } catch (error) {
      if (withdrawn.aborted) throw withdrawn.reason
      // What is wrong on this side, or with what a server sent, the servers are told.
      if (isLoss(error)) withdraw()
      else leave(publicError(error))
      throw error
    } finally {
      signal.removeEventListener('abort', stop)
      withdrawn.removeEventListener('abort', withdraw)
      await leaving
      for (const [index, { bytesSent, bytesReceived }] of connections.entries()) {
        events({ kind: 'traffic', peer: serverName(index), bytesSent, bytesReceived })
      }
    }
  }

  async #connect(): Promise<Connection<Peer, WorkerMessage, ServerMessage>[]> {
    const { connect, layout, mayRetry, signal } = this.#options
    const all = Array.from({ length: layout.placement.servers }, (_, server) => connect(server, signal))
    const settled = await Promise.allSettled(all)
    const server = settled.findIndex(({ status }) => status === 'rejected')
    if (server === -1) return await Promise.all(all)
    for (const result of settled) if (result.status === 'fulfilled') result.value.destroy()
    const { reason } = settled[server] as PromiseRejectedResult
    throw mayRetry(reason) ? lost(`server ${server} could not be reached`, reason) : reason
  }

  /** The first task; or, where training is over, the final scores. A leader that has lost what it told us was on disk was set back by its host, and is not followed. */
  async #join(servers: readonly RemoteServer<Peer>[]): Promise<Task | { readonly scores: Scores }> {
    const { acceptRollback = false, hello, layout, newestSeen } = this.#options
    const placementDigest = layout.placement.digest
    const join = (index: number): Promise<Joined> => servers[index]!.join({ ...hello, server: index, placementDigest })
    // The leader first: what it prepares, the others do not wait for.
    const leader = await join(0)
    const others = Promise.all(servers.slice(1).map((_, follower) => join(follower + 1)))
    if (leader.kind === 'finished') {
      // The others wait for us too; those that don't may be gone.
      await others.catch(() => undefined)
      return leader
    }
    await others
    if (newestSeen !== undefined) {
      const { step = 0 } = newestSeen
      if (leader.durableStep < step && !acceptRollback) throw rolledBack(step, leader.durableStep)
      await newestSeen.remember(leader.durableStep)
    }
    if (leader.task === undefined) throw unexpected('a task in the leader’s welcome', 'none')
    return leader.task
  }

  async #train(fleet: Fleet<Peer>, first: Task): Promise<Scores> {
    const { clock, events, hello, newestSeen, prefetch, signal, training } = this.#options
    let current = { task: first, batch: this.#read(first) }
    let [model, spare] = await this.#memory(await current.batch)
    let pulling = this.#pull(fleet, current.batch, model)
    let settled: Promise<void> = Promise.resolve()
    let iterationSince = clock.now()
    for (;;) {
      const answer = await pulling // ⑥ the new parameters are in place
      if (answer.kind === 'finished') return answer.scores
      if (answer.kind === 'evaluate') {
        await this.#score(fleet, answer.version)
        iterationSince = clock.now()
        pulling = this.#pull(fleet, current.batch, model)
        continue
      }
      const { lease, version, durableStep } = answer
      if (durableStep > (newestSeen?.step ?? 0)) await newestSeen?.remember(durableStep)
      const next = { task: answer.task, batch: this.#read(answer.task) }
      const ahead = prefetch ? this.#pull(fleet, next.batch, spare) : undefined
      const batch = await current.batch
      const computingSince = clock.now()
      const update = await training.computeUpdate(model.parameters, model.rows, batch, current.task, signal) // ②
      const computeMs = clock.now() - computingSince
      try {
        this.#verify(update)
        await settled
        const { outcome } = await fleet.push(lease, update) // ③, answered after ④
        const { loss, examples } = update
        const since = iterationSince
        iterationSince = clock.now()
        settled = outcome.then((became) => {
          const iterationMs = (prefetch ? iterationSince : clock.now()) - since
          const times = { iterationMs, computeMs, waitMs: iterationMs - computeMs }
          events({ kind: 'step', worker: hello.worker, step: version, examples, loss, ...times })
          this.#count(became, examples, version)
        })
        settled.catch(() => undefined)
      } finally {
        update.dispose()
      }
      if (ahead === undefined) {
        pulling = this.#pull(fleet, next.batch, model)
        await settled
        iterationSince = clock.now()
      } else {
        pulling = ahead
        ;[model, spare] = [spare, model]
      }
      current = next
    }
  }

  #count(outcome: PushOutcome, examples: number, step: number): void {
    const { events, hello } = this.#options
    this.#examples += examples
    if ('dropped' in outcome) {
      events({ kind: 'update-refused', worker: hello.worker, step, error: publicError(outcome.dropped) })
    }
  }

  #read(task: Task): Promise<PreparedBatch> {
    const batch = this.#options.training.batch(task)
    // Whoever awaits it gets the error; until then it is not unhandled.
    batch.catch(() => undefined)
    return batch
  }

  #pull(fleet: Fleet<Peer>, batch: Promise<PreparedBatch>, into: PulledModel): Promise<FleetAnswer> {
    const answer = batch.then(({ rows }) => fleet.pull(rows, false, into))
    // Whoever awaits it gets the error; a step that fails meanwhile leaves nobody to await it.
    answer.catch(() => undefined)
    return answer
  }

  async #memory(batch: PreparedBatch): Promise<[PulledModel, PulledModel]> {
    const { engine, layout, prefetch, training } = this.#options
    const make = (): PulledModel =>
      new PulledModel(engine, layout, layout.transfer, training.rowMemory(engine, batch, layout.transfer))
    if (this.#models.length === 0) this.#models = prefetch ? [make(), make()] : [make()]
    for (const model of this.#models) model.held.fill(undefined)
    const [model, spare = model] = this.#models
    return [model!, spare!]
  }

  /** Scores this worker's held-out examples with the version that the leader named. */
  async #score(fleet: Fleet<Peer>, version: number): Promise<void> {
    const { engine, layout, training } = this.#options
    const sums = await scoreAll(training, async (batch) => {
      this.#scored ??= new PulledModel(engine, layout, 'float32', training.rowMemory(engine, batch))
      const answer = await fleet.pull(batch.rows, true, this.#scored)
      if (answer.kind !== 'parameters') throw lost('the server ended training before it was scored')
      return await training.score(this.#scored.parameters, this.#scored.rows, batch)
    })
    this.#scored?.held.fill(undefined)
    await fleet.score(version, sums)
  }

  /**
   * The worker is the first to notice when training diverges, and says so instead of sending it. It looks at the loss alone: the
   * server looks at every value.
   */
  #verify({ loss }: ComputedUpdate): void {
    if (Number.isFinite(loss)) return
    throw new FederationError('loss-not-finite', `expected a finite loss, got ${loss}`, {
      hint: 'Training diverged: lower the learning rate, lengthen the warm-up, or look for bad examples.',
    })
  }

  /** Waits before the next attempt, or throws when there is none. */
  async #waitForServer(error: unknown): Promise<void> {
    const { clock, events, reconnectForMs, signal } = this.#options
    if (!isLoss(error)) throw error
    const now = clock.now()
    const since = Math.min(this.#alone.since, now)
    const attempt = this.#alone.attempts + 1
    const leftMs = since + reconnectForMs - now
    if (leftMs <= 0) throw unreachable(reconnectForMs, error)
    const retryInMs = Math.min(firstRetryMs * 2 ** (attempt - 1), longestRetryMs, leftMs)
    this.#alone = { since, attempts: attempt }
    events({ kind: 'connection-lost', attempt, retryInMs, error: publicError(error) })
    await pause(clock, retryInMs, signal)
  }
}

/** Servers out of step are so for a moment, when a worker joins while they go to the next version. */
const lossCodes: ReadonlySet<string> = new Set(['peer-lost', 'server-stopping', 'version-mismatch'])

/** The server or the way to it is gone, and may come back. */
function isLoss(error: unknown): boolean {
  return error instanceof FederationError && lossCodes.has(error.code)
}

function stopped(): PublicError {
  return { code: 'stopped', message: 'the worker was stopped', hint: 'Somebody stopped it: its log says when.' }
}

function finished(): PublicError {
  return { code: 'training-finished', message: 'training is over', hint: 'Nothing to do.' }
}

function rolledBack(seen: number, got: number): FederationError {
  return new FederationError('server-rolled-back', `expected a server with step ${seen} on disk, got one with ${got}`, {
    hint:
      'The server told us before that step was safe on disk: its checkpoints were lost, or its host gave it old ones. Restore ' +
      'the newer ones; or, if their loss is known and accepted by all parties, run the job with rollback: accept.',
  })
}

function unreachable(reconnectForMs: number, cause: unknown): FederationError {
  const last = publicError(cause).message
  return new FederationError('server-unreachable', `expected a server within ${reconnectForMs} ms, got: ${last}`, {
    hint: 'Start the server again or check its address, then start this worker again: it goes on where the server is.',
    cause,
  })
}
