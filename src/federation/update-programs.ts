// SPDX-License-Identifier: Apache-2.0
/**
 * The server's arithmetic: aggregates updates and applies the optimizer, in one compiled program for each number of updates
 * and length of segments. Dense tensors and the rows of tables go through the same formulas.
 *
 * Inputs: `rate`; for each update `share/<index>` and `update/<index>/<segment>`; for each segment `parameter/<segment>` and,
 * where it is trained, `<slot>/<segment>`. Outputs: each parameter and slot under its own name, and `sent/<segment>`.
 */
import assert from 'node:assert/strict'
import * as tf from '@tensorflow/tfjs'
import type { Engine, HostTensor, Program, Signature } from '../engine/engine.ts'
import { type Transfer, transferOf } from '../models/bfloat16.ts'
import type { Aggregator } from './aggregators/aggregator.ts'
import type { TensorRole } from './manifest.ts'
import type { Optimizer } from './optimizers/optimizer.ts'

export interface UpdateProgramsOptions {
  readonly engine: Engine
  readonly optimizer: Optimizer
  readonly aggregator: Aggregator
  /** λ: λ·w is added to the gradient of each `weight`, of nothing else. */
  readonly weightDecay: number
  /** How updates come, and how parameters are given besides themselves: as `sent/<segment>`, unless that is float32. */
  readonly transfer: Transfer
}

/** Elements of each segment, by the role of its tensors. */
export type SegmentSizes = ReadonlyMap<TensorRole, number>

export class UpdatePrograms {
  readonly #options: UpdateProgramsOptions
  readonly #slots: readonly string[]
  readonly #programs = new Map<string, Program>()

  constructor(options: UpdateProgramsOptions) {
    this.#options = options
    this.#slots = Object.keys(options.optimizer.slots)
  }

  get transfer(): Transfer {
    return this.#options.transfer
  }

  get(updateCount: number, sizes: SegmentSizes): Program {
    const name = `update-${updateCount}x${[...sizes.values()].join('-')}`
    const key = `${name} ${[...sizes.keys()]}`
    const known = this.#programs.get(key)
    if (known !== undefined) return known
    const program = this.#options.engine.compile({
      name,
      inputs: this.#signature(updateCount, sizes),
      build: (inputs) => this.#build(inputs, updateCount, sizes),
      rounded: new Set([...sizes.keys()].map((role) => `sent/${role}`)),
    })
    this.#programs.set(key, program)
    return program
  }

  async close(): Promise<void> {
    await Promise.all([...this.#programs.values()].map((program) => program.close()))
  }

  #signature(updateCount: number, sizes: SegmentSizes): Signature {
    const signature: Record<string, Signature[string]> = { rate: { shape: [], dtype: 'float32' } }
    for (let index = 0; index < updateCount; index++) signature[`share/${index}`] = { shape: [], dtype: 'float32' }
    for (const [role, elements] of sizes) {
      const spec = { shape: [elements], dtype: 'float32' } as const
      signature[`parameter/${role}`] = spec
      if (role !== 'statistic') for (const slot of this.#slots) signature[`${slot}/${role}`] = spec
      const update = { shape: [elements], dtype: transferOf(role, this.transfer) }
      for (let index = 0; index < updateCount; index++) signature[`update/${index}/${role}`] = update
    }
    return signature
  }

  #build(inputs: Record<string, tf.Tensor>, updateCount: number, sizes: SegmentSizes): Record<string, tf.Tensor> {
    const { aggregator, optimizer, weightDecay } = this.#options
    const input = (name: string): tf.Tensor => {
      const tensor = inputs[name]
      assert(tensor !== undefined, name)
      return tensor
    }
    const indices = Array.from({ length: updateCount }, (_, index) => index)
    const outputs: Record<string, tf.Tensor> = {}
    for (const role of sizes.keys()) {
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
        slots: Object.fromEntries(this.#slots.map((slot) => [slot, input(`${slot}/${role}`)])),
        rate: input('rate'),
      })
      outputs[`parameter/${role}`] = result.parameter
      if (this.transfer === 'bfloat16') outputs[`sent/${role}`] = tf.clone(result.parameter)
      for (const [slot, value] of Object.entries(result.slots)) outputs[`${slot}/${role}`] = value
    }
    return outputs
  }
}

export function scalar(value: number): HostTensor {
  return { shape: [], dtype: 'float32', data: Float32Array.of(value) }
}
