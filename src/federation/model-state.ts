// SPDX-License-Identifier: Apache-2.0
/**
 * What one server holds of the model: dense parameters, embedding tables, the optimizer's slots of both, and the version
 * that counts updates. Compiled programs aggregate the updates and apply the optimizer; the model is what it was before until
 * they have ended, and then changes at once.
 */
import assert from 'node:assert/strict'
import type { Engine, EngineTensor, HostTensor } from '../engine/engine.ts'
import { type Transfer, toBfloat16 } from '../models/bfloat16.ts'
import type { RowsBlock } from '../storage/rows-block.ts'
import type { Aggregator } from './aggregators/aggregator.ts'
import { type Capture, EmbeddingTable } from './embedding-table.ts'
import { FederationError } from './federation-error.ts'
import type { Manifest, TensorRole } from './manifest.ts'
import type { Optimizer } from './optimizers/optimizer.ts'
import type { TableSpec } from './row-initializer.ts'
import { type RowGradients, RowUpdater } from './row-updates.ts'
import { segmentSizes, TensorSet, type Values } from './tensor-set.ts'
import { scalar, UpdatePrograms } from './update-programs.ts'

export interface ModelStateOptions {
  readonly engine: Engine
  readonly manifest: Manifest
  readonly optimizer: Optimizer
  readonly aggregator: Aggregator
  /** λ: λ·w is added to the gradient of each `weight`, of nothing else. */
  readonly weightDecay: number
  /** How updates come and how parameters are sent; float32 when absent. */
  readonly transfer?: Transfer
  /** Initial or saved values by name; must be the manifest's tensors exactly. */
  readonly values: ReadonlyMap<string, Float32Array>
  /** Saved slots by name of slot, then of tensor; initial ones where absent. */
  readonly slots?: ReadonlyMap<string, ReadonlyMap<string, Float32Array>>
  /** Updates that `values` have seen. */
  readonly version?: number
  readonly tables?: ModelTables
}

export interface ModelTables {
  readonly specs: readonly TableSpec[]
  /** Of the job: first values of rows derive from it. */
  readonly seed: number
  /** Of each table, on this server. */
  readonly maximumRows: number
}

/** Gradients of trained tensors; new minus old value of statistics. */
export interface ModelUpdate {
  readonly worker: number
  readonly examples: number
  readonly values: TensorSet<Values>
  /** By table; tables that are absent were not touched. */
  readonly rows?: ReadonlyMap<string, RowGradients>
}

/** Dense parameters of one version, unchanged however the model goes on; `release` when done. */
export interface Parameters {
  readonly version: number
  readonly parameters: TensorSet<Values>
  release(): void
}

/** As the model holds them. */
export interface Snapshot extends Parameters {
  readonly parameters: TensorSet
  readonly slots: ReadonlyMap<string, TensorSet>
}

/** The same parameters for one more user, without slots. */
export function another({ version, parameters }: Snapshot): Snapshot {
  const retained = parameters.retain()
  return { version, parameters: retained, slots: new Map(), release: () => retained.release() }
}

export class ModelState {
  readonly manifest: Manifest
  readonly tables: ReadonlyMap<string, EmbeddingTable>
  readonly #options: ModelStateOptions
  readonly #sizes: ReadonlyMap<TensorRole, number>
  readonly #programs: UpdatePrograms
  readonly #rowUpdater: RowUpdater
  readonly #transfer: Transfer
  #version: number
  #parameters: TensorSet
  /** The parameters as they are sent. */
  #sent: TensorSet<Values>
  #slots: ReadonlyMap<string, TensorSet>

  constructor(options: ModelStateOptions) {
    const { engine, manifest, optimizer, values } = options
    this.manifest = manifest
    this.#options = options
    this.#sizes = segmentSizes(manifest)
    this.#transfer = options.transfer ?? 'float32'
    this.#programs = new UpdatePrograms({ ...options, transfer: this.#transfer })
    this.#rowUpdater = new RowUpdater(engine, this.#programs)
    this.tables = tablesOf(options)
    this.#version = options.version ?? 0
    this.#parameters = filled(engine, manifest, values)
    this.#sent = this.#asSent(this.#parameters, (role, segment) => {
      const { data, shape } = segment
      assert(data instanceof Float32Array, role)
      return engine.tensor({ shape, dtype: 'bfloat16' }, toBfloat16(data))
    })
    const trained = manifest.filter(({ role }) => role !== 'statistic')
    this.#slots = new Map(
      Object.entries(optimizer.slots).map(([slot, initial]) => {
        const saved = options.slots?.get(slot)
        return [slot, saved === undefined ? constantSet(engine, trained, initial) : filled(engine, trained, saved)]
      }),
    )
  }

  /** Updates applied so far. */
  get version(): number {
    return this.#version
  }

  snapshot(): Snapshot {
    const parameters = this.#parameters.retain()
    const slots = new Map([...this.#slots].map(([slot, set]) => [slot, set.retain()]))
    return {
      version: this.#version,
      parameters,
      slots,
      release: () => {
        for (const set of [parameters, ...slots.values()]) set.release()
      },
    }
  }

  /** What workers train with: values as they are sent. */
  toTrainWith(): Parameters {
    const sent = this.#sent.retain()
    return { version: this.#version, parameters: sent, release: () => sent.release() }
  }

  /** Aggregates and applies; never call it again before it has ended. The updates stay the caller's. */
  async apply(updates: readonly ModelUpdate[], scheduledRate: number): Promise<void> {
    assert(updates.length > 0)
    const version = this.#version
    const ordered = updates.toSorted((a, b) => a.worker - b.worker)
    const examples = ordered.reduce((sum, update) => sum + update.examples, 0)
    const shares = ordered.map((update) => update.examples / examples)
    const rate = this.#options.optimizer.rate(scheduledRate, version)
    const [outputs, ...changes] = await Promise.all([
      this.#stepTensors(ordered, shares, rate),
      ...[...this.tables.values()].map((table) => this.#stepRows(table, ordered, shares, rate)),
    ])
    assert.equal(this.#version, version, 'updates must not interleave')
    const parameters = takeSet(this.manifest, outputs, 'parameter')
    const slots = new Map([...this.#slots].map(([slot, { manifest }]) => [slot, takeSet(manifest, outputs, slot)]))
    this.#release()
    this.#parameters = parameters
    this.#sent = this.#asSent(parameters, (role) => outputs[`sent/${role}`]!)
    this.#slots = slots
    for (const change of changes) change()
    this.#version = version + 1
  }

  /** Rows of all tables that have changed since the last capture, as they are now, however training goes on. */
  captureRows(): Capture {
    const captures = [...this.tables.values()].map((table) => table.capture())
    return {
      rows: captures.reduce((sum, { rows }) => sum + rows, 0),
      *blocks() {
        for (const capture of captures) yield* capture.blocks()
      },
      commit() {
        for (const capture of captures) capture.commit()
      },
      cancel() {
        for (const capture of captures) capture.cancel()
      },
    }
  }

  /** Saved rows, before training. */
  loadRows(block: RowsBlock): void {
    const table = this.tables.get(block.table)
    if (table === undefined) {
      throw new FederationError('table-mismatch', `expected no rows of a table ${block.table}`, {
        hint: 'The rows were saved by another job or model.',
      })
    }
    table.load(block)
  }

  async close(): Promise<void> {
    this.#release()
    await this.#programs.close()
    this.#rowUpdater.close()
  }

  #release(): void {
    for (const set of [this.#parameters, this.#sent, ...this.#slots.values()]) set.release()
  }

  /** The parameters themselves where they are sent as float32; else with `rounded` in the place of what is trained. */
  #asSent(
    parameters: TensorSet,
    rounded: (role: TensorRole, segment: EngineTensor) => EngineTensor,
  ): TensorSet<Values> {
    parameters.retain()
    if (this.#transfer === 'float32') return parameters
    const own = new Map<TensorRole, EngineTensor>()
    for (const [role, segment] of parameters.segments) if (role !== 'statistic') own.set(role, rounded(role, segment))
    return new TensorSet<Values>(this.manifest, new Map([...parameters.segments, ...own]), () => {
      for (const segment of own.values()) segment.dispose()
      parameters.release()
    })
  }

  async #stepTensors(
    updates: readonly ModelUpdate[],
    shares: readonly number[],
    rate: number,
  ): Promise<Record<string, EngineTensor>> {
    if (this.#sizes.size === 0) return {}
    const inputs: Record<string, HostTensor> = { rate: scalar(rate) }
    for (const [role, segment] of this.#parameters.segments) inputs[`parameter/${role}`] = segment
    for (const [slot, set] of this.#slots) {
      for (const [role, segment] of set.segments) inputs[`${slot}/${role}`] = segment
    }
    for (const [index, update] of updates.entries()) {
      inputs[`share/${index}`] = scalar(shares[index]!)
      for (const [role, segment] of update.values.segments) inputs[`update/${index}/${role}`] = segment
    }
    return this.#programs.get(updates.length, this.#sizes).run(inputs)
  }

  #stepRows(
    table: EmbeddingTable,
    updates: readonly ModelUpdate[],
    shares: readonly number[],
    rate: number,
  ): Promise<() => void> {
    const rows = updates.map((update) => update.rows?.get(table.spec.name) ?? noRows)
    return this.#rowUpdater.step(table, rows, shares, rate)
  }
}

const noRows: RowGradients = { ids: new Uint32Array(), gradients: new Float32Array() }

function tablesOf({ tables, optimizer }: ModelStateOptions): ReadonlyMap<string, EmbeddingTable> {
  if (tables === undefined) return new Map()
  const { specs, seed, maximumRows } = tables
  return new Map(
    specs.map((spec) => [spec.name, new EmbeddingTable({ spec, seed, slots: optimizer.slots, maximumRows })]),
  )
}

function takeSet(manifest: Manifest, outputs: Record<string, EngineTensor>, name: string): TensorSet {
  const roles = [...segmentSizes(manifest).keys()]
  return new TensorSet(manifest, new Map(roles.map((role) => [role, outputs[`${name}/${role}`]!])))
}

function constantSet(engine: Engine, manifest: Manifest, value: number): TensorSet {
  const set = TensorSet.allocate(engine, manifest)
  for (const tensor of set.tensors) tensor.fill(value)
  return set
}

function filled(engine: Engine, manifest: Manifest, values: ReadonlyMap<string, Float32Array>): TensorSet {
  const hint = 'The values belong to another model or another version of it.'
  for (const { name, shape, elements } of manifest) {
    const value = values.get(name)
    if (value === undefined)
      throw new FederationError('tensor-missing', `expected a value for ${name}, got none`, { hint })
    if (value.length !== elements) {
      throw new FederationError(
        'tensor-shape-mismatch',
        `${name}: expected ${elements} values (shape [${shape}]), got ${value.length}`,
        { hint },
      )
    }
  }
  const extra = [...values.keys()].find((name) => !manifest.some((entry) => entry.name === name))
  if (extra !== undefined) throw new FederationError('tensor-unknown', `expected no tensor ${extra}`, { hint })
  const set = TensorSet.allocate(engine, manifest)
  for (const [index, { name }] of manifest.entries()) set.tensors[index]!.set(values.get(name)!)
  return set
}
