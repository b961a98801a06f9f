// SPDX-License-Identifier: Apache-2.0
/**
 * The parameters, the optimizer's slots and the version that counts updates. One compiled program aggregates the updates
 * and applies the optimizer; the model is what it was before until that program has ended.
 */
import assert from 'node:assert/strict'
import * as tf from '@tensorflow/tfjs'
import type { Engine, EngineTensor, HostTensor, Program, Signature } from '../engine/engine.ts'
import type { Aggregator } from './aggregators/aggregator.ts'
import { FederationError } from './federation-error.ts'
import type { Manifest, TensorRole } from './manifest.ts'
import type { Optimizer } from './optimizers/optimizer.ts'
import { segmentSizes, TensorSet } from './tensor-set.ts'

export interface ModelStateOptions {
  readonly engine: Engine
  readonly manifest: Manifest
  readonly optimizer: Optimizer
  readonly aggregator: Aggregator
  /** λ: λ·w is added to the gradient of each `weight`, of nothing else. */
  readonly weightDecay: number
  /** Initial or saved values by name; must be the manifest's tensors exactly. */
  readonly values: ReadonlyMap<string, Float32Array>
  /** Saved slots by name of slot, then of tensor; initial ones where absent. */
  readonly slots?: ReadonlyMap<string, ReadonlyMap<string, Float32Array>>
  /** Updates that `values` have seen. */
  readonly version?: number
}

/** Gradients of trained tensors; new minus old value of statistics. */
export interface ModelUpdate {
  readonly worker: number
  readonly examples: number
  readonly values: TensorSet
}

/** Parameters of one version, unchanged however the model goes on; `release` when done. */
export interface Snapshot {
  readonly version: number
  readonly parameters: TensorSet
  readonly slots: ReadonlyMap<string, TensorSet>
  release(): void
}

export class ModelState {
  readonly manifest: Manifest
  readonly #options: ModelStateOptions
  readonly #sizes: ReadonlyMap<TensorRole, number>
  /** By number of updates aggregated at once. */
  readonly #programs = new Map<number, Program>()
  #version: number
  #parameters: TensorSet
  #slots: ReadonlyMap<string, TensorSet>

  constructor(options: ModelStateOptions) {
    const { engine, manifest, optimizer, values } = options
    this.manifest = manifest
    this.#options = options
    this.#sizes = segmentSizes(manifest)
    this.#version = options.version ?? 0
    this.#parameters = filled(engine, manifest, values)
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

  /** Aggregates and applies; never call it again before it has ended. The updates stay the caller's. */
  async apply(updates: readonly ModelUpdate[], scheduledRate: number): Promise<void> {
    assert(updates.length > 0)
    const version = this.#version
    const { optimizer } = this.#options
    const ordered = updates.toSorted((a, b) => a.worker - b.worker)
    const examples = ordered.reduce((sum, update) => sum + update.examples, 0)
    const inputs: Record<string, HostTensor> = { rate: scalar(optimizer.rate(scheduledRate, version)) }
    for (const [role, segment] of this.#parameters.segments) inputs[`parameter/${role}`] = segment
    for (const [slot, set] of this.#slots) {
      for (const [role, segment] of set.segments) inputs[`${slot}/${role}`] = segment
    }
    for (const [index, update] of ordered.entries()) {
      inputs[`share/${index}`] = scalar(update.examples / examples)
      for (const [role, segment] of update.values.segments) inputs[`update/${index}/${role}`] = segment
    }
    const outputs = await this.#program(ordered.length).run(inputs)
    assert.equal(this.#version, version, 'updates must not interleave')
    const parameters = takeSet(this.manifest, outputs, 'parameter')
    const slots = new Map([...this.#slots].map(([slot, { manifest }]) => [slot, takeSet(manifest, outputs, slot)]))
    for (const set of [this.#parameters, ...this.#slots.values()]) set.release()
    this.#parameters = parameters
    this.#slots = slots
    this.#version = version + 1
  }

  async close(): Promise<void> {
    for (const set of [this.#parameters, ...this.#slots.values()]) set.release()
    await Promise.all([...this.#programs.values()].map((program) => program.close()))
  }

  #program(updateCount: number): Program {
    const known = this.#programs.get(updateCount)
    if (known !== undefined) return known
    const program = this.#options.engine.compile({
      name: `update-${updateCount}`,
      inputs: this.#signature(updateCount),
      build: (inputs) => this.#build(inputs, updateCount),
    })
    this.#programs.set(updateCount, program)
    return program
  }

  #signature(updateCount: number): Signature {
    const signature: Record<string, Signature[string]> = { rate: { shape: [], dtype: 'float32' } }
    for (let index = 0; index < updateCount; index++) signature[`share/${index}`] = { shape: [], dtype: 'float32' }
    for (const [role, elements] of this.#sizes) {
      const spec = { shape: [elements], dtype: 'float32' } as const
      signature[`parameter/${role}`] = spec
      if (role !== 'statistic') for (const slot of this.#slots.keys()) signature[`${slot}/${role}`] = spec
      for (let index = 0; index < updateCount; index++) signature[`update/${index}/${role}`] = spec
    }
    return signature
  }

  #build(inputs: Record<string, tf.Tensor>, updateCount: number): Record<string, tf.Tensor> {
    const { aggregator, optimizer, weightDecay } = this.#options
    const input = (name: string): tf.Tensor => {
      const tensor = inputs[name]
      assert(tensor !== undefined, name)
      return tensor
    }
    const indices = Array.from({ length: updateCount }, (_, index) => index)
    const outputs: Record<string, tf.Tensor> = {}
    for (const role of this.#sizes.keys()) {
      const parameter = input(`parameter/${role}`)
      const update = aggregator.combine(
        indices.map((index) => input(`update/${index}/${role}`)),
        indices.map((index) => input(`share/${index}`)),
      )
      if (role === 'statistic') {
        outputs[`parameter/${role}`] = tf.add(parameter, update)
        continue
      }
      const decayed = role === 'weight' && weightDecay > 0
      const result = optimizer.step({
        parameter,
        gradient: decayed ? tf.add(update, tf.mul(parameter, weightDecay)) : update,
        slots: Object.fromEntries([...this.#slots.keys()].map((slot) => [slot, input(`${slot}/${role}`)])),
        rate: input('rate'),
      })
      outputs[`parameter/${role}`] = result.parameter
      for (const [slot, value] of Object.entries(result.slots)) outputs[`${slot}/${role}`] = value
    }
    return outputs
  }
}

function scalar(value: number): HostTensor {
  return { shape: [], dtype: 'float32', data: Float32Array.of(value) }
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
