// SPDX-License-Identifier: Apache-2.0
/**
 * A worker: its side of the six steps, whole. It holds its shard, computes in its enclave, and gives away nothing but
 * updates and sums, to a server that has proven what it is.
 *
 * `connect` authenticates before it resolves. The host decides when bytes arrive or the connection breaks: then the worker
 * waits and joins again under the same session, until `reconnectForMs` have passed without a server.
 */

import type { AttestedPeer } from '../attestation/policy.ts'
import type { Engine, EngineTensor } from '../engine/engine.ts'
import { type PublicError, publicError } from '../errors.ts'
import type { EventSink, PeerEvidence } from '../observability/events.ts'
import type { Connection } from '../transport/connection.ts'
import { type Clock, pause } from './clock.ts'
import type { Scores } from './evaluation.ts'
import { FederationError } from './federation-error.ts'
import type { Manifest } from './manifest.ts'
import { lost } from './protocol/message-reader.ts'
import type { ServerMessage, WorkerMessage } from './protocol/messages.ts'
import { RemoteServer } from './protocol/remote-server.ts'
import type { Hello } from './protocol/remote-worker.ts'
import { verifyFinite } from './slices.ts'
import type { ComputedUpdate, Training } from './training.ts'

export interface WorkerOptions<Peer extends AttestedPeer = AttestedPeer> {
  readonly connect: (signal: AbortSignal) => Promise<Connection<Peer, WorkerMessage, ServerMessage>>
  /** `withdrawn`: aborted, with the error as its reason, when the server is no longer acceptable. */
  readonly describe: (peer: Peer) => { name: string; evidence: PeerEvidence; withdrawn?: AbortSignal }
  /** Which failures of `connect` are worth another attempt: a server that is not there, not one that proved unacceptable. */
  readonly mayRetry: (error: unknown) => boolean
  readonly hello: Hello
  readonly engine: Engine
  readonly manifest: Manifest
  readonly training: Training
  /** Without a server the worker gives up after this. */
  readonly reconnectForMs: number
  readonly clock: Clock
  readonly events: EventSink
  /** Leaves early. */
  readonly signal: AbortSignal
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
  readonly #parameters: ReadonlyMap<string, EngineTensor>
  #examples = 0
  /** Since when there has been no server, and how often it was tried. */
  #alone: { since: number; attempts: number }

  constructor(options: WorkerOptions<Peer>) {
    const { engine, manifest, clock } = options
    this.#options = options
    this.#parameters = new Map(
      manifest.map(({ name, shape }) => [name, engine.tensor({ shape, dtype: 'float32' })] as const),
    )
    this.#alone = { since: clock.now(), attempts: 0 }
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
      await training.close()
      for (const tensor of this.#parameters.values()) tensor.dispose()
    }
  }

  /** The final scores; nothing when stopped. */
  async #untilTheEnd(): Promise<Scores | undefined> {
    const { signal } = this.#options
    while (!signal.aborted) {
      try {
        return await this.#withServer()
      } catch (error) {
        if (signal.aborted) break
        await this.#waitForServer(error)
      }
    }
    return undefined
  }

  /** One connection, from the handshake to the end of training. */
  async #withServer(): Promise<Scores> {
    const { describe, events, hello, manifest, signal } = this.#options
    const connection = await this.#connect() // ① both sides have proven what they are
    const targets = manifest.map(({ name }) => this.#parameters.get(name)?.data as Float32Array)
    const server = new RemoteServer(connection, manifest, targets)
    const { name, evidence, withdrawn } = describe(connection.peer)
    let leaving: Promise<void> | undefined
    const leave = (reason: PublicError): void => {
      leaving ??= server.leave(reason)
    }
    const stop = (): void => leave(stopped())
    signal.addEventListener('abort', stop)
    const withdraw = (): void => connection.destroy()
    if (withdrawn?.aborted) withdraw()
    withdrawn?.addEventListener('abort', withdraw)
    try {
      await server.join(hello)
      events({ kind: 'peer-joined', peer: name, evidence })
      this.#alone = { since: Number.POSITIVE_INFINITY, attempts: 0 }
      const scores = await this.#train(server)
      await server.close()
      return scores
    } catch (error) {
      if (withdrawn?.aborted) throw withdrawn.reason
      // What is wrong on this side, or with what the server sent, the server is told.
      if (isLoss(error)) connection.destroy()
      else leave(publicError(error))
      throw error
    } finally {
      signal.removeEventListener('abort', stop)
      withdrawn?.removeEventListener('abort', withdraw)
      await leaving
      events({ kind: 'traffic', peer: name, bytesSent: connection.bytesSent, bytesReceived: connection.bytesReceived })
    }
  }

  async #connect(): Promise<Connection<Peer, WorkerMessage, ServerMessage>> {
    const { connect, mayRetry, signal } = this.#options
    try {
      return await connect(signal)
    } catch (error) {
      throw mayRetry(error) ? lost('no server could be reached', error) : error
    }
  }

  async #train(server: RemoteServer<Peer>): Promise<Scores> {
    const { clock, events, hello, signal, training } = this.#options
    let iterationStartedAt = clock.now()
    for (;;) {
      const assignment = await server.assignment() // ⑥ the new parameters are in place
      if (assignment.task === 'end') return assignment.scores
      if (assignment.task === 'evaluate') {
        await server.score(assignment.version, await training.score(this.#parameters))
        iterationStartedAt = clock.now()
        continue
      }
      const batch = await training.nextBatch()
      const computingSince = clock.now()
      const update = await training.computeUpdate(this.#parameters, batch, signal) // ②
      const computeMs = clock.now() - computingSince
      try {
        this.#verify(update)
        const { loss, examples, values } = update
        const outcome = await server.push({ baseVersion: assignment.version, loss, examples, values }) // ③, answered after ④
        this.#examples += examples
        const now = clock.now()
        const [iterationMs, step] = [now - iterationStartedAt, assignment.version]
        iterationStartedAt = now
        events({
          kind: 'step',
          worker: hello.worker,
          step,
          loss,
          iterationMs,
          computeMs,
          waitMs: iterationMs - computeMs,
        })
        if ('dropped' in outcome) {
          events({ kind: 'update-refused', worker: hello.worker, step, error: publicError(outcome.dropped) })
        }
      } finally {
        update.dispose()
      }
    }
  }

  /** The worker is the first to notice when training diverges, and says so instead of sending it. */
  #verify({ loss, values }: ComputedUpdate): void {
    if (!Number.isFinite(loss)) {
      throw new FederationError('loss-not-finite', `expected a finite loss, got ${loss}`, {
        hint: 'Training diverged: lower the learning rate, lengthen the warm-up, or look for bad examples.',
      })
    }
    for (const [index, { name }] of this.#options.manifest.entries()) verifyFinite(name, values[index]!)
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

/** The server or the way to it is gone, and may come back. */
function isLoss(error: unknown): boolean {
  return error instanceof FederationError && (error.code === 'peer-lost' || error.code === 'server-stopping')
}

function stopped(): PublicError {
  return { code: 'stopped', message: 'the worker was stopped', hint: 'Somebody stopped it: its log says when.' }
}

function unreachable(reconnectForMs: number, cause: unknown): FederationError {
  const last = publicError(cause).message
  return new FederationError('server-unreachable', `expected a server within ${reconnectForMs} ms, got: ${last}`, {
    hint: 'Start the server again or check its address, then start this worker again: it goes on where the server is.',
    cause,
  })
}
