// SPDX-License-Identifier: Apache-2.0
/**
 * A worker as the server sees it: what it asks and what it is answered. Everything it sends is checked here for form, order,
 * size and finiteness; what it means for the model is for server.ts to say.
 */
import { type PublicError, publicError } from '../../errors.ts'
import type { Transfer } from '../../models/bfloat16.ts'
import type { Connection } from '../../transport/connection.ts'
import type { Scores } from '../evaluation.ts'
import { claim, FederationError } from '../federation-error.ts'
import type { Manifest } from '../manifest.ts'
import type { Sums } from '../metrics.ts'
import type { Parameters as Sent } from '../model-state.ts'
import type { TableSpec } from '../row-initializer.ts'
import type { RowGradients } from '../row-updates.ts'
import { Assembly, slicesOf, verifyFinite } from '../slices.ts'
import type { TensorSet, Values } from '../tensor-set.ts'
import type { Pull as WirePull, Push as WirePush } from './gen/cloister/v1/federation_pb.ts'
import { lost, type MessageReader } from './message-reader.ts'
import {
  manifestToWire,
  type ServerMessage,
  serverMessage,
  unexpected,
  type WorkerMessage,
  type WorkerMessages,
} from './messages.ts'
import { RowAssembly, RowIdAssembly, rowParts } from './row-transfer.ts'
import { verifiedSums } from './worker-claims.ts'

/** Pulls that a worker may have open: one that it computes with and one that it takes ahead. */
const maxOpenPulls = 2
/** Of what a worker contributes before training, at a time. */
const maxPartBytes = 1 << 20

/** Which batch a worker computes. */
export interface Task {
  readonly shard: number
  readonly position: number
}

/** A request for parameters; a push consumes it. */
export interface Pull {
  readonly id: number
  readonly evaluate: boolean
  readonly heldVersion: number | undefined
  /** Of each table, ascending. */
  readonly rows: readonly Uint32Array[]
}

export interface Push {
  readonly pull: number
  /** Of the parameters that it was computed with. */
  readonly baseVersion: number
  readonly examples: number
  readonly loss: number
  /** The receiver's to release. */
  readonly values: TensorSet<Values>
  readonly rows: ReadonlyMap<string, RowGradients>
}

export type WorkerRequest =
  | { readonly kind: 'pull'; readonly pull: Pull }
  | { readonly kind: 'push'; readonly push: Push }
  | { readonly kind: 'scores'; readonly version: number; readonly sums: Sums }

/** What became of a push. */
export type PushOutcome = { readonly appliedVersion: number } | { readonly dropped: FederationError }

export interface RemoteWorkerOptions {
  readonly manifest: Manifest
  readonly tables: readonly TableSpec[]
  readonly place: { readonly server: number; readonly servers: number }
  /** How gradients of rows come. */
  readonly transfer: Transfer
  /** Most examples of one push: bounds its weight in a mean. */
  readonly batchSize: number
  /** For the gradients of one push. */
  readonly memory: () => TensorSet<Values>
}

export interface Welcome {
  readonly version: number
  readonly totalUpdates: number
  readonly durableStep: number
  readonly task: Task | undefined
}

interface OpenPull {
  readonly rows: readonly Uint32Array[]
  /** By table, where its rows lie. */
  readonly places: Int32Array[]
  /** Of the parameters, once they were sent. */
  version?: number
}

export class RemoteWorker<Peer> {
  readonly connection: Connection<Peer, ServerMessage, WorkerMessage>
  readonly #options: RemoteWorkerOptions
  readonly #reader: MessageReader<WorkerMessage>
  /** Train-pulls that wait for parameters or for their push; with the version once it was sent. */
  readonly #pulls = new Map<number, OpenPull>()
  /** To score with, not answered yet. */
  #scoringPulls = 0
  #lastPull = -1
  /** Answers do not interleave. */
  #sending: Promise<unknown> = Promise.resolve()

  constructor(
    connection: Connection<Peer, ServerMessage, WorkerMessage>,
    reader: MessageReader<WorkerMessage>,
    options: RemoteWorkerOptions,
  ) {
    this.connection = connection
    this.#reader = reader
    this.#options = options
  }

  /** Each part of what the worker has to say before training. */
  async *contribution(): AsyncGenerator<Uint8Array, void> {
    await this.#send({ case: 'prepare', value: {} })
    for (;;) {
      const { part } = await this.#expect('contribution')
      if (part.length === 0) return
      if (part.length > maxPartBytes) throw unexpected(`parts of at most ${maxPartBytes} bytes`, `${part.length}`)
      yield part
    }
  }

  async prepared(parts: Iterable<Uint8Array>): Promise<void> {
    for (const part of parts) await this.#send({ case: 'prepared', value: { part } })
    await this.#send({ case: 'prepared', value: { part: new Uint8Array() } })
  }

  async welcome(welcome: Welcome): Promise<void> {
    const { manifest, tables } = this.#options
    const value = {
      manifest: manifestToWire(manifest),
      tables: tables.map(({ name, width, rows }) => ({ name, width, rows })),
      version: welcome.version,
      totalUpdates: welcome.totalUpdates,
      durableStep: welcome.durableStep,
      ...(welcome.task !== undefined && { task: welcome.task }),
    }
    await this.#send({ case: 'welcome', value })
  }

  /** What the worker asks next. */
  async request(): Promise<WorkerRequest> {
    const { message } = await this.#reader.read()
    switch (message.case) {
      case 'pull':
        return { kind: 'pull', pull: await this.#pull(message.value) }
      case 'push':
        return { kind: 'push', push: await this.#push(message.value) }
      case 'scores':
        return { kind: 'scores', version: message.value.version, sums: verifiedSums(message.value) }
      case 'leave':
        throw left(message.value)
      default:
        throw unexpected('pull, push, scores or leave', message.case)
    }
  }

  /** `rows` as many as the pull asked for, by table; read until it resolves, as are the parameters. */
  parameters(
    pull: Pull,
    { version, parameters }: Sent,
    rows: readonly Values[],
    { task, durableStep }: { readonly task: Task | undefined; readonly durableStep: number },
  ): Promise<void> {
    const { tables } = this.#options
    const open = this.#pulls.get(pull.id)
    if (open !== undefined) open.version = version
    if (pull.evaluate) this.#scoringPulls--
    return this.#exclusively(async () => {
      const held = pull.heldVersion === version
      const header = { pull: pull.id, version, held, durableStep, ...(task !== undefined && { task }) }
      await this.#send({ case: 'parameters', value: header })
      if (!held) {
        for (const slices of slicesOf(parameters.tensors)) await this.#send({ case: 'slices', value: { slices } })
      }
      const counts = pull.rows.map((ids) => ids.length)
      for (const part of rowParts(tables, counts, rows)) await this.#send({ case: 'rowSlices', value: part })
    })
  }

  /** Where a table's rows of this pull lie, for its push. */
  remember({ id }: Pull, table: number, places: Int32Array): void {
    const open = this.#pulls.get(id)
    if (open !== undefined) open.places[table] = places
  }

  evaluate(pull: Pull, version: number): Promise<void> {
    this.#pulls.delete(pull.id)
    return this.#exclusively(() => this.#send({ case: 'evaluate', value: { pull: pull.id, version } }))
  }

  answer(pull: number, outcome: PushOutcome): Promise<void> {
    return this.#exclusively(() =>
      this.#send(
        'dropped' in outcome
          ? { case: 'dropped', value: { pull, ...publicError(outcome.dropped) } }
          : { case: 'applied', value: { pull, version: outcome.appliedVersion } },
      ),
    )
  }

  async finish(version: number, scores: Scores): Promise<void> {
    await this.#exclusively(() => this.#send({ case: 'finished', value: { version, scores: { ...scores } } }))
    await this.close()
  }

  /** Says why and ends the stream, as `close` does. */
  async refuse(error: unknown): Promise<void> {
    const told = publicError(error)
    try {
      await this.#exclusively(() => this.#send({ case: 'refused', value: told }))
      await this.close(told)
    } catch {
      // The worker is gone: it cannot be told.
      this.connection.destroy()
    }
  }

  /** Ends our half of the stream, waits for the worker to end its own, and then the connection has served. */
  async close(reason?: PublicError): Promise<void> {
    await this.connection.close(reason)
    await this.#reader.drain()
    this.connection.destroy()
  }

  async #pull({ id, evaluate, heldVersion, rowCounts }: WirePull): Promise<Pull> {
    if (id <= this.#lastPull) throw unexpected(`a pull above ${this.#lastPull}`, `pull ${id}`)
    this.#lastPull = id
    const open = evaluate ? this.#scoringPulls : this.#pulls.size
    if (open >= maxOpenPulls && (evaluate || !this.#forgetOldest())) {
      throw new FederationError('pull-too-many', `expected at most ${maxOpenPulls} open pulls, got one more`, {
        hint: 'The worker does not follow the protocol: compare its version with ours.',
      })
    }
    const assembly = new RowIdAssembly(this.#options.tables, rowCounts, this.#options.place)
    while (!assembly.complete) assembly.accept(await this.#expect('rows'))
    if (evaluate) this.#scoringPulls++
    else this.#pulls.set(id, { rows: assembly.ids, places: [] })
    return { id, evaluate, heldVersion, rows: assembly.ids }
  }

  /** An answered pull that no push came for: the leader asked the worker for scores instead. */
  #forgetOldest(): boolean {
    // The leader itself takes back the pull that it does not answer.
    if (this.#options.place.server === 0) return false
    for (const [id, { version }] of this.#pulls) if (version !== undefined) return this.#pulls.delete(id)
    return false
  }

  /** `memory` is taken when the header has come and passed the rules, and released again should the rest be wrong. */
  async #push({ pull, examples, loss }: WirePush): Promise<Push> {
    const { batchSize, memory, tables, transfer } = this.#options
    const open = this.#pulls.get(pull)
    if (open?.version === undefined) throw unknownPull(pull, this.#lastPull)
    if (examples < 1 || examples > batchSize) {
      throw new FederationError(
        'push-examples-out-of-range',
        `expected a push over 1 to ${batchSize} examples, got ${examples}`,
        { hint: 'Server and workers must read the same batch size from the job.' },
      )
    }
    if (!Number.isFinite(loss)) {
      throw new FederationError('loss-not-finite', `expected a finite loss, got ${loss}`, {
        hint: 'Training diverged: lower the learning rate, lengthen the warm-up, or look for bad examples.',
      })
    }
    this.#pulls.delete(pull)
    const values = memory()
    try {
      const assembly = new Assembly(values.manifest, values.tensors, verifyFinite)
      while (!assembly.complete) assembly.accept((await this.#expect('slices')).slices)
      const counts = open.rows.map((ids) => ids.length)
      const Gradients = transfer === 'bfloat16' ? Uint16Array : Float32Array
      const gradients = counts.map((count, table) => new Gradients(count * tables[table]!.width))
      const rows = new RowAssembly(tables, counts, gradients, verifyFinite)
      while (!rows.complete) rows.accept(await this.#expect('rowSlices'))
      const named = tables.map(({ name }, table) => {
        const places = open.places[table]
        const ids = open.rows[table]!
        return [name, { ids, gradients: gradients[table]!, ...(places !== undefined && { places }) }] as const
      })
      return { pull, baseVersion: open.version, examples, loss, values, rows: new Map(named) }
    } catch (error) {
      values.release()
      throw error
    }
  }

  async #expect<Kind extends keyof WorkerMessages>(kind: Kind): Promise<WorkerMessages[Kind]> {
    const { message } = await this.#reader.read()
    if (message.case === kind) return message.value as WorkerMessages[Kind]
    throw message.case === 'leave' ? left(message.value) : unexpected(kind, message.case)
  }

  #exclusively(work: () => Promise<void>): Promise<void> {
    const done = this.#sending.then(work)
    this.#sending = done.catch(() => undefined)
    return done
  }

  async #send(message: Parameters<typeof serverMessage>[0]): Promise<void> {
    try {
      await this.connection.send(serverMessage(message))
    } catch (cause) {
      throw lost('the connection broke', cause)
    }
  }
}

function unknownPull(pull: number, last: number): FederationError {
  const hint = 'The worker does not follow the protocol: compare its version with ours.'
  return pull <= last
    ? new FederationError('push-duplicate', `expected one push for pull ${pull}, got another`, { hint })
    : new FederationError('pull-unknown', `expected a push for a pull up to ${last}, got one for ${pull}`, { hint })
}

function left({ code, message }: { code: string; message: string }): FederationError {
  // Followers hear of the end from their leader, perhaps later than from a worker.
  const why = code === 'training-finished' ? code : 'worker-left'
  return new FederationError(why, `the worker left: ${claim(code)}: ${claim(message)}`, {
    hint: "See the worker's log.",
  })
}
