// SPDX-License-Identifier: Apache-2.0
/**
 * One value for every tensor of the model, in engine memory: the parameters, an update to them, an optimizer's slot.
 * Tensors of one role lie one behind the other in one engine tensor (a segment), because optimizers and aggregators work
 * element by element and one operation over a segment costs a fraction of one operation per tensor.
 */
import assert from 'node:assert/strict'
import type { Engine, EngineTensor, HostTensor } from '../engine/engine.ts'
import { type Manifest, type TensorRole, tensorRoles } from './manifest.ts'

export type Segments = ReadonlyMap<TensorRole, EngineTensor>

export class TensorSet {
  readonly manifest: Manifest
  readonly segments: Segments
  /** By manifest index: views into the segments, without a copy. */
  readonly tensors: readonly Float32Array[]
  #uses = 1

  /** Takes over the segments. */
  constructor(manifest: Manifest, segments: Segments) {
    this.manifest = manifest
    this.segments = segments
    const ends = new Map<TensorRole, number>()
    this.tensors = manifest.map(({ role, elements }) => {
      const data = segments.get(role)?.data
      assert(data instanceof Float32Array)
      const start = ends.get(role) ?? 0
      ends.set(role, start + elements)
      return data.subarray(start, start + elements)
    })
    for (const [role, { data }] of segments) assert.equal(data.length, ends.get(role))
  }

  /** Zeroed. */
  static allocate(engine: Engine, manifest: Manifest): TensorSet {
    const segments = [...segmentSizes(manifest)].map(
      ([role, elements]) => [role, engine.tensor({ shape: [elements], dtype: 'float32' })] as const,
    )
    return new TensorSet(manifest, new Map(segments))
  }

  named(): ReadonlyMap<string, HostTensor> {
    return new Map(
      this.manifest.map(({ name, shape }, index) => [name, { shape, dtype: 'float32', data: this.tensors[index]! }]),
    )
  }

  /** One more user, who must call `release`. */
  retain(): this {
    assert(this.#uses > 0)
    this.#uses++
    return this
  }

  /** The memory is freed when the last user releases it. */
  release(): void {
    assert(this.#uses > 0)
    this.#uses--
    if (this.#uses === 0) for (const segment of this.segments.values()) segment.dispose()
  }
}

/** Elements of each role that the manifest has. */
export function segmentSizes(manifest: Manifest): Map<TensorRole, number> {
  const sizes = new Map<TensorRole, number>()
  for (const role of tensorRoles) {
    const entries = manifest.filter((entry) => entry.role === role)
    if (entries.length > 0)
      sizes.set(
        role,
        entries.reduce((sum, { elements }) => sum + elements, 0),
      )
  }
  return sizes
}
