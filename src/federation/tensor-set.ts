// SPDX-License-Identifier: Apache-2.0
/**
 * One value for every tensor of the model, in engine memory: the parameters, an update to them, an optimizer's slot.
 * Tensors of one role lie one behind the other in one engine tensor (a segment), because optimizers and aggregators work
 * element by element and one operation over a segment costs a fraction of one operation per tensor.
 */
import assert from 'node:assert/strict'
import type { Engine, EngineTensor, HostTensor } from '../engine/engine.ts'
import { type Transfer, transferOf } from '../models/bfloat16.ts'
import { type Manifest, type TensorRole, tensorRoles } from './manifest.ts'

export type Segments = ReadonlyMap<TensorRole, EngineTensor>

/** float32, or the bits of bfloat16. */
export type Values = Float32Array | Uint16Array

export function valuesOf(tensor: HostTensor | undefined): Values {
  assert(tensor?.data instanceof Float32Array || tensor?.data instanceof Uint16Array)
  return tensor.data
}

export class TensorSet<V extends Values = Float32Array> {
  readonly manifest: Manifest
  readonly segments: Segments
  readonly #free: (segments: Segments) => void
  #tensors: readonly V[] | undefined
  #uses = 1

  /** Takes over the segments, whose elements are `V`, and gives them to `free` in the end. */
  constructor(manifest: Manifest, segments: Segments, free: (segments: Segments) => void = dispose) {
    const sizes = segmentSizes(manifest)
    for (const [role, { shape }] of segments) assert.deepEqual(shape, [sizes.get(role)])
    this.manifest = manifest
    this.segments = segments
    this.#free = free
  }

  /**
   * By manifest index: views into the segments, without a copy. Made when asked for: V8 counts what is in view towards its heap,
   * and nobody looks into most optimizer slots.
   */
  get tensors(): readonly V[] {
    this.#tensors ??= viewsOf<V>(this.manifest, this.segments)
    return this.#tensors
  }

  /** Zeroed. */
  static allocate(engine: Engine, manifest: Manifest): TensorSet {
    return new TensorSet(manifest, allocateSegments(engine, manifest, 'float32'))
  }

  named(this: TensorSet): ReadonlyMap<string, HostTensor> {
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
    if (this.#uses === 0) this.#free(this.segments)
  }
}

/**
 * Memory for sets of one manifest, used again: with megabytes allocated for every update, V8 collects garbage for a quarter of a
 * server's time. A set holds what its last user left there.
 */
export class TensorPool {
  readonly manifest: Manifest
  readonly #engine: Engine
  readonly #transfer: Transfer
  readonly #idle: Segments[] = []
  #closed = false

  constructor(engine: Engine, manifest: Manifest, transfer: Transfer = 'float32') {
    this.#engine = engine
    this.manifest = manifest
    this.#transfer = transfer
  }

  take(): TensorSet<Values> {
    const segments = this.#idle.pop() ?? allocateSegments(this.#engine, this.manifest, this.#transfer)
    return new TensorSet(this.manifest, segments, (freed) => {
      if (this.#closed) dispose(freed)
      else this.#idle.push(freed)
    })
  }

  /** Sets in use are freed by their users. */
  close(): void {
    this.#closed = true
    for (const segments of this.#idle.splice(0)) dispose(segments)
  }
}

function allocateSegments(engine: Engine, manifest: Manifest, transfer: Transfer): Segments {
  const segments = [...segmentSizes(manifest)].map(([role, elements]) => {
    return [role, engine.tensor({ shape: [elements], dtype: transferOf(role, transfer) })] as const
  })
  return new Map(segments)
}

function dispose(segments: Segments): void {
  for (const segment of segments.values()) segment.dispose()
}

function viewsOf<V extends Values>(manifest: Manifest, segments: Segments): readonly V[] {
  const ends = new Map<TensorRole, number>()
  return manifest.map(({ role, elements }) => {
    const start = ends.get(role) ?? 0
    ends.set(role, start + elements)
    return valuesOf(segments.get(role)).subarray(start, start + elements) as V
  })
}

/**
 * TensorFlow computes square roots and quotients of whole vector registers in another way than those of the elements left
 * over, and the last bits differ. In segments that fill whole registers an element's bits do not depend on where it lies, and
 * so not on which tensors share its server. The rest stays unused.
 */
const elementsPerRegister = 16

function padded(elements: number): number {
  return Math.ceil(elements / elementsPerRegister) * elementsPerRegister
}

/** Elements of each segment: of the role's tensors in the manifest, and what fills the last register. */
export function segmentSizes(manifest: Manifest): Map<TensorRole, number> {
  const sizes = new Map<TensorRole, number>()
  for (const role of tensorRoles) {
    const entries = manifest.filter((entry) => entry.role === role)
    if (entries.length > 0) sizes.set(role, padded(entries.reduce((sum, { elements }) => sum + elements, 0)))
  }
  return sizes
}
