// SPDX-License-Identifier: Apache-2.0
/**
 * One server as a worker sees it. Pulls and pushes overlap: each is answered in its own time. Failures of the connection come
 * out as `peer-lost`, after which the worker may join again; what the server refused comes out under the server's own code.
 */
import type { PublicError } from '../../errors.ts'
import type { Connection } from '../../transport/connection.ts'
import { Deferred } from '../deferred.ts'
import type { Scores } from '../evaluation.ts'
import { FederationError, refusalFromPeer } from '../federation-error.ts'
import { type Manifest, verifySameManifest } from '../manifest.ts'
import type { Sums } from '../metrics.ts'
import type { PreparationWorker } from '../preparation.ts'
import type { TableSpec } from '../row-initializer.ts'
import { Assembly, slicesOf } from '../slices.ts'
import type { Values } from '../tensor-set.ts'
import type { Parameters as WireParameters } from './gen/cloister/v1/federation_pb.ts'
import { lost, MessageReader } from './message-reader.ts'
import {
  manifestFromWire,
  protocolVersion,
  type ServerMessage,
  type ServerMessages,
  unexpected,
  type WorkerMessage,
  workerMessage,
} from './messages.ts'
import type { PushOutcome, Task } from './remote-worker.ts'
import { RowAssembly, rowIdParts, rowParts } from './row-transfer.ts'
import type { Hello } from './worker-claims.ts'

export type Joined = Admitted | { readonly kind: 'finished'; readonly version: number; readonly scores: Scores }

export interface Admitted {
  readonly kind: 'admitted'
  readonly version: number
  readonly totalUpdates: number
  readonly durableStep: number
  /** From the leader only. */
  readonly task: Task | undefined
}

export interface OutgoingPull {
  /** Ascending, never twice in one session, and the same at every server. */
  readonly id: number
  readonly evaluate: boolean
  /** Of each table, ascending. */
  readonly rows: readonly Uint32Array[]
  /** Where the answer is put: dense tensors by manifest index, and as many rows of each table. */
  readonly into: PullTarget
}

export interface PullTarget {
  readonly dense: readonly Values[]
  /** Of the values that `dense` holds; kept by whoever pulls into it. */
  heldVersion: number | undefined
  readonly rows: readonly Values[]
}

export type PullAnswer =
  | {
      readonly kind: 'parameters'
      readonly pull: number
      readonly version: number
      readonly durableStep: number
      readonly task: Task | undefined
    }
  | { readonly kind: 'evaluate'; readonly version: number }
  | { readonly kind: 'finished'; readonly version: number; readonly scores: Scores }

export interface OutgoingPush {
  readonly pull: number
  readonly examples: number
  readonly loss: number
  /** By manifest index; read until `push` resolves, as is `rows`. */
  readonly values: readonly Values[]
  /** Gradients of the pull's rows, by table. */
  readonly rows: readonly Values[]
  readonly rowCounts: readonly number[]
}

export interface RemoteServerOptions {
  readonly manifest: Manifest
  readonly tables: readonly TableSpec[]
  readonly preparation: PreparationWorker | undefined
}

export class RemoteServer<Peer> {
  readonly connection: Connection<Peer, WorkerMessage, ServerMessage>
  readonly #options: RemoteServerOptions
  readonly #reader: MessageReader<ServerMessage>
  readonly #pulls = new Map<number, { readonly request: OutgoingPull; readonly answer: Deferred<PullAnswer> }>()
  readonly #pushes = new Map<number, Deferred<PushOutcome>>()
  #failure: unknown
  /** Since the welcome; resolves when the stream has ended. */
  #listening: Promise<void> | undefined
  #sending: Promise<unknown> = Promise.resolve()

  constructor(connection: Connection<Peer, WorkerMessage, ServerMessage>, options: RemoteServerOptions) {
    this.connection = connection
    this.#options = options
    this.#reader = new MessageReader(connection.incoming)
  }

  /** Throws what the server refuses, and what differs between its model and ours. */
  async join(hello: Hello): Promise<Joined> {
    await this.#send({ case: 'hello', value: { protocol: protocolVersion, ...hello } })
    const { manifest, tables } = this.#options
    for (;;) {
      const { message } = await this.#read()
      if (message.case === 'prepare') {
        await this.#contribute()
        continue
      }
      if (message.case === 'prepared') {
        await this.#takePrepared(message.value.part)
        continue
      }
      if (message.case === 'finished') return { kind: 'finished', ...message.value }
      if (message.case !== 'welcome') throw unexpected('welcome', message.case)
      const welcome = message.value
      verifySameManifest(manifest, manifestFromWire(welcome.manifest))
      verifySameTables(tables, welcome.tables)
      this.#listening = this.#listen()
      return { kind: 'admitted', ...welcome, task: welcome.task }
    }
  }

  /** Resolves when everything that was asked for is in place. */
  async pull(request: OutgoingPull): Promise<PullAnswer> {
    const answer = new Deferred<PullAnswer>()
    if (this.#failure !== undefined) throw this.#failure
    const { id, evaluate, rows, into } = request
    this.#pulls.set(id, { request, answer })
    await this.#exclusively(async () => {
      const rowCounts = rows.map((ids) => ids.length)
      const held = into.heldVersion === undefined ? {} : { heldVersion: into.heldVersion }
      await this.#send({ case: 'pull', value: { id, evaluate, rowCounts, ...held } })
      for (const part of rowIdParts(rows)) await this.#send({ case: 'rows', value: part })
    })
    return await answer.promise
  }

  /** The inner promise settles with what became of it; the outer one when all has been handed to the network. */
  async push({ values, rows, rowCounts, ...header }: OutgoingPush): Promise<{ outcome: Promise<PushOutcome> }> {
    const answer = new Deferred<PushOutcome>()
    if (this.#failure !== undefined) throw this.#failure
    this.#pushes.set(header.pull, answer)
    await this.#exclusively(async () => {
      await this.#send({ case: 'push', value: header })
      for (const slices of slicesOf(values)) await this.#send({ case: 'slices', value: { slices } })
      for (const part of rowParts(this.#options.tables, rowCounts, rows)) {
        await this.#send({ case: 'rowSlices', value: part })
      }
    })
    return { outcome: answer.promise }
  }

  async score(version: number, sums: Sums): Promise<void> {
    const scalars = Object.entries(sums).filter((entry): entry is [string, number] => typeof entry[1] === 'number')
    const classes = Object.entries(sums).filter(
      (entry): entry is [string, Float64Array] => typeof entry[1] !== 'number',
    )
    const histograms = Object.fromEntries(classes.map(([name, counts]) => [name, { counts: [...counts] }]))
    const value = { version, sums: Object.fromEntries(scalars), histograms }
    await this.#exclusively(() => this.#send({ case: 'scores', value }))
  }

  /** Says why we go, and goes. */
  async leave(reason: PublicError): Promise<void> {
    const { code, message } = reason
    try {
      await this.#exclusively(() => this.connection.send(workerMessage({ case: 'leave', value: { code, message } })))
      await this.close()
    } catch {
      // The server is gone: it cannot be told.
      this.connection.destroy()
    }
  }

  /** Ends our half of the stream, waits for the server to end its own, and then the connection has served. */
  async close(): Promise<void> {
    await this.connection.close()
    // Who was refused has not begun to listen.
    await (this.#listening ?? this.#reader.drain())
    this.connection.destroy()
  }

  async #listen(): Promise<void> {
    try {
      for (;;) await this.#take(await this.#read())
    } catch (error) {
      this.#failure = error
      for (const { answer } of this.#pulls.values()) answer.reject(error)
      for (const answer of this.#pushes.values()) answer.reject(error)
      await this.#reader.drain()
    }
  }

  async #take({ message }: ServerMessage): Promise<void> {
    switch (message.case) {
      case 'parameters':
        return await this.#takeParameters(message.value)
      case 'evaluate': {
        const { pull, version } = message.value
        return this.#pullOf(pull).answer.resolve({ kind: 'evaluate', version })
      }
      case 'applied':
        return this.#pushOf(message.value.pull).resolve({ appliedVersion: message.value.version })
      case 'dropped':
        return this.#pushOf(message.value.pull).resolve({ dropped: refusalFromPeer(message.value) })
      case 'finished': {
        const { version, scores } = message.value
        for (const { answer } of this.#pulls.values()) answer.resolve({ kind: 'finished', version, scores })
        this.#pulls.clear()
        return
      }
      default:
        throw unexpected('an answer to a pull or push', message.case)
    }
  }

  async #takeParameters({ pull, version, held, task, durableStep }: WireParameters): Promise<void> {
    const { request, answer } = this.#pullOf(pull)
    // From here on it is not among the open ones: should the rest not come, nobody else would tell who waits for it.
    const taken = this.#place(request, version, held)
    taken.then(
      () => answer.resolve({ kind: 'parameters', pull, version, durableStep, task }),
      (error: unknown) => answer.reject(error),
    )
    await taken
  }

  /** Not inspected: they come of values that the server's attested code has inspected, and the loss tells if it went wrong. */
  async #place({ into, rows }: OutgoingPull, version: number, held: boolean): Promise<void> {
    const { manifest, tables } = this.#options
    if (held && version !== into.heldVersion) {
      throw unexpected(`parameters, as version ${into.heldVersion ?? 'none'} is held`, `version ${version} as held`)
    }
    if (!held) {
      into.heldVersion = undefined
      const assembly = new Assembly(manifest, into.dense)
      while (!assembly.complete) assembly.accept((await this.#expect('slices')).slices)
      into.heldVersion = version
    }
    const assembly = new RowAssembly(
      tables,
      rows.map((ids) => ids.length),
      into.rows,
    )
    while (!assembly.complete) assembly.accept(await this.#expect('rowSlices'))
  }

  async #contribute(): Promise<void> {
    const { preparation } = this.#options
    if (preparation === undefined) throw unexpected('welcome, as this job prepares nothing', 'prepare')
    for await (const part of preparation.contribution()) await this.#send({ case: 'contribution', value: { part } })
    await this.#send({ case: 'contribution', value: { part: new Uint8Array() } })
  }

  async #takePrepared(first: Uint8Array): Promise<void> {
    const { preparation } = this.#options
    if (preparation === undefined) throw unexpected('welcome, as this job prepares nothing', 'prepared')
    const taking = preparation.begin()
    for (let part = first; part.length > 0; part = (await this.#expect('prepared')).part) taking.accept(part)
    taking.end()
  }

  #pullOf(id: number) {
    const known = this.#pulls.get(id)
    if (known === undefined) throw unexpected('an answer to an open pull', `one to ${id}`)
    this.#pulls.delete(id)
    return known
  }

  #pushOf(pull: number): Deferred<PushOutcome> {
    const known = this.#pushes.get(pull)
    if (known === undefined) throw unexpected('an answer to an open push', `one to ${pull}`)
    this.#pushes.delete(pull)
    return known
  }

  async #read(): Promise<ServerMessage> {
    const received = await this.#reader.read()
    if (received.message.case === 'refused') throw refusalFromPeer(received.message.value)
    return received
  }

  async #expect<Kind extends keyof ServerMessages>(kind: Kind): Promise<ServerMessages[Kind]> {
    const { message } = await this.#read()
    if (message.case !== kind) throw unexpected(kind, message.case)
    return message.value as ServerMessages[Kind]
  }

  #exclusively(work: () => Promise<void>): Promise<void> {
    const done = this.#sending.then(work)
    this.#sending = done.catch(() => undefined)
    return done
  }

  async #send(message: Parameters<typeof workerMessage>[0]): Promise<void> {
    try {
      await this.connection.send(workerMessage(message))
    } catch (cause) {
      // What the server had to say before it went tells more than that it is gone.
      throw this.#failure ?? lost('the connection broke', cause)
    }
  }
}

function verifySameTables(
  ours: readonly TableSpec[],
  theirs: readonly { name: string; width: number; rows: number }[],
): void {
  const said = (tables: readonly { name: string; width: number; rows: number }[]): string =>
    tables.map(({ name, width, rows }) => `${name} ${rows}×${width}`).join(', ') || 'none'
  if (said(ours) === said(theirs)) return
  throw new FederationError('table-mismatch', `expected the tables ${said(ours)}, got ${said(theirs)}`, {
    hint: 'Server and workers must run the same job with the same version of Cloister.',
  })
}
