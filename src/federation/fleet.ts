// SPDX-License-Identifier: Apache-2.0
/**
 * All servers of a job as one: a pull and a push are cut along the placement, sent to every server, and put together again.
 * The leader (server 0) alone hands out tasks and asks for scores.
 */
import assert from 'node:assert/strict'
import type { Engine, EngineTensor } from '../engine/engine.ts'
import { type Transfer, transferOf } from '../models/bfloat16.ts'
import type { Scores } from './evaluation.ts'
import { FederationError } from './federation-error.ts'
import type { Manifest } from './manifest.ts'
import type { Sums } from './metrics.ts'
import { type Placement, rowsByServer, type ServerRows } from './placement.ts'
import type { PullTarget, RemoteServer } from './protocol/remote-server.ts'
import type { PushOutcome, Task } from './protocol/remote-worker.ts'
import type { TableSpec } from './row-initializer.ts'
import { type Values, valuesOf } from './tensor-set.ts'
import type { ComputedUpdate } from './training.ts'

export interface FleetLayout {
  readonly manifest: Manifest
  readonly tables: readonly TableSpec[]
  readonly placement: Placement
  /** How parameters, rows and gradients travel in training; what is scored travels as float32. */
  readonly transfer: Transfer
}

/** Where one pull's answer lies: parameters of the whole model, and the rows that a batch touches. */
export class PulledModel {
  readonly parameters: ReadonlyMap<string, EngineTensor>
  /** By table; at least as many rows as the batch touches. */
  readonly rows: readonly EngineTensor[]
  /** By server: its dense tensors, in its own manifest's order. */
  readonly dense: readonly (readonly Values[])[]
  /** By server: version of what `dense` holds. */
  readonly held: (number | undefined)[]

  constructor(engine: Engine, { manifest, placement }: FleetLayout, transfer: Transfer, rows: readonly EngineTensor[]) {
    const tensors = manifest.map(({ name, shape, role }) => {
      return [name, engine.tensor({ shape, dtype: transferOf(role, transfer) })] as const
    })
    this.parameters = new Map(tensors)
    this.rows = rows
    const servers = Array.from({ length: placement.servers }, (_, server) => server)
    this.dense = servers.map((server) =>
      manifest
        .filter((_, index) => placement.tensors[index] === server)
        .map(({ name }) => valuesOf(this.parameters.get(name))),
    )
    this.held = servers.map(() => undefined)
  }

  dispose(): void {
    for (const tensor of [...this.parameters.values(), ...this.rows]) tensor.dispose()
  }
}

export type FleetAnswer =
  | {
      readonly kind: 'parameters'
      /** For `push`. */
      readonly lease: Lease
      readonly version: number
      readonly durableStep: number
      readonly task: Task
    }
  | { readonly kind: 'evaluate'; readonly version: number }
  | { readonly kind: 'finished'; readonly version: number; readonly scores: Scores }

export interface Lease {
  /** By server. */
  readonly pulls: readonly number[]
  readonly rows: readonly RowsByServer[]
}

/** Of one table, by server. */
type RowsByServer = readonly ServerRows[]

export interface FleetOptions {
  /** All servers go from version to version together. */
  readonly synchronous: boolean
  /** The number of the next pull: one a session, whatever becomes of its connections, so that servers can tell its pushes apart. */
  readonly numberPull: () => number
}

export class Fleet<Peer> {
  readonly servers: readonly RemoteServer<Peer>[]
  readonly #layout: FleetLayout
  readonly #options: FleetOptions

  constructor(servers: readonly RemoteServer<Peer>[], layout: FleetLayout, options: FleetOptions) {
    assert.equal(servers.length, layout.placement.servers)
    this.servers = servers
    this.#layout = layout
    this.#options = options
  }

  /** `ids`: of each table, ascending. When it resolves with parameters, they are in `into`. */
  async pull(ids: readonly Uint32Array[], evaluate: boolean, into: PulledModel): Promise<FleetAnswer> {
    const split = ids.map((all) => rowsByServer(all, this.servers.length))
    const request = { id: this.#options.numberPull(), split, evaluate, into }
    const parts = this.servers.map((server, index) => this.#pullFrom(server, index, request))
    for (const part of parts) part.catch(() => undefined)
    const leader = await parts[0]!
    if (leader.kind === 'finished') return leader
    const answers = await Promise.all(parts)
    if (leader.kind === 'evaluate') return leader
    const pulls = answers.map((answer) => {
      assert(answer.kind === 'parameters', 'only the leader asks for scores and ends training')
      if (this.#options.synchronous && answer.version !== leader.version) {
        const hint = 'Servers of one job go from version to version together: see their logs.'
        const message = `expected version ${leader.version} of every server, got ${answer.version}`
        throw new FederationError('version-mismatch', message, { hint })
      }
      return answer.pull
    })
    assert(leader.task !== undefined || evaluate)
    const { version, durableStep, task = { shard: 0, position: 0 } } = leader
    return { kind: 'parameters', lease: { pulls, rows: split }, version, durableStep, task }
  }

  /** The inner promise says what became of it on the leader. */
  async push({ pulls, rows }: Lease, update: ComputedUpdate): Promise<{ outcome: Promise<PushOutcome> }> {
    const { manifest, placement, tables } = this.#layout
    const { examples, loss } = update
    const sent = await Promise.all(
      this.servers.map((server, index) => {
        const values = update.values.filter((_, tensor) => placement.tensors[tensor] === index)
        const gradients = tables.map(({ width }, table) =>
          this.servers.length === 1
            ? update.rows[table]!
            : pick(update.rows[table]!, rows[table]![index]!.positions, width),
        )
        const rowCounts = rows.map((parts) => parts[index]!.ids.length)
        return server.push({ pull: pulls[index]!, examples, loss, values, rows: gradients, rowCounts })
      }),
    )
    assert.equal(update.values.length, manifest.length)
    const outcomes = sent.map(({ outcome }) => outcome)
    for (const outcome of outcomes) outcome.catch(() => undefined)
    return { outcome: Promise.all(outcomes).then(([leader]) => leader!) }
  }

  async score(version: number, sums: Sums): Promise<void> {
    await this.servers[0]!.score(version, sums)
  }

  async #pullFrom(
    server: RemoteServer<Peer>,
    index: number,
    request: {
      readonly id: number
      readonly split: readonly RowsByServer[]
      readonly evaluate: boolean
      readonly into: PulledModel
    },
  ) {
    const { tables } = this.#layout
    const { id, split, evaluate, into } = request
    const alone = this.servers.length === 1
    const rows = split.map((parts) => parts[index]!.ids)
    const targets = tables.map(({ width }, table) =>
      alone ? valuesOf(into.rows[table]) : alike(valuesOf(into.rows[table]), rows[table]!.length * width),
    )
    const target: PullTarget = { dense: into.dense[index]!, heldVersion: into.held[index], rows: targets }
    const answer = await server.pull({ id, evaluate, rows, into: target }).finally(() => {
      into.held[index] = target.heldVersion
    })
    if (!alone && answer.kind === 'parameters') {
      for (const [table, { width }] of tables.entries()) {
        scatter(targets[table]!, split[table]![index]!.positions, valuesOf(into.rows[table]), width)
      }
    }
    return answer
  }
}

/** New memory for values of the same kind. */
function alike(values: Values, length: number): Values {
  return values instanceof Uint16Array ? new Uint16Array(length) : new Float32Array(length)
}

function pick(from: Values, positions: Uint32Array, width: number): Values {
  const picked = alike(from, positions.length * width)
  for (const [row, position] of positions.entries()) {
    for (let column = 0; column < width; column++) picked[row * width + column] = from[position * width + column]!
  }
  return picked
}

function scatter(from: Values, positions: Uint32Array, to: Values, width: number): void {
  for (const [row, position] of positions.entries()) {
    for (let column = 0; column < width; column++) to[position * width + column] = from[row * width + column]!
  }
}
