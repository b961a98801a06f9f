// SPDX-License-Identifier: Apache-2.0
/**
 * Tensors in TensorFlow's memory. Each is freed exactly once: by `dispose`, or by the garbage collector as a net. A run
 * pins what it reads, so that disposing of a tensor in the middle of a run frees it at the end of that run.
 */
import assert from 'node:assert'
import type { EngineTensor, HostTensor, TensorSpec, TypedArray } from './engine.ts'
import { EngineError } from './engine-error.ts'
import type { Library, Pointer } from './library.ts'
import type { GraphDataType } from './lowering.ts'
import { bytesOf, describeSpec, viewOf } from './signature.ts'

/** TF_DataType of tensorflow/c/tf_datatype.h. */
export const nativeTypes: Readonly<Record<GraphDataType, number>> = {
  float32: 1,
  int32: 3,
  uint8: 4,
  int64: 9,
  bool: 10,
  bfloat16: 14,
  uint64: 23,
}

let live = 0
/** Native tensors of this process that have not been freed: what a leak test watches. */
export function liveTensorCount(): number {
  return live
}

const net = new FinalizationRegistry<{ library: Library; pointer: Pointer }>(({ library, pointer }) =>
  free(library, pointer),
)

function free(library: Library, pointer: Pointer): void {
  library.api.TF_DeleteTensor(pointer)
  live--
}

const owner = Symbol('owner')

export class NativeTensor implements EngineTensor {
  readonly shape: readonly number[]
  readonly dtype: TensorSpec['dtype']
  readonly #library: Library
  readonly #pointer: Pointer
  #view: TypedArray | undefined
  #pins = 0
  #state: 'live' | 'disposed' | 'freed' = 'live'

  /** Takes over `pointer`, whose memory must hold what `spec` says. */
  constructor(library: Library, spec: TensorSpec, pointer: Pointer) {
    assert.equal(library.api.TF_TensorByteSize(pointer), bytesOf(spec), `native tensor of ${describeSpec(spec)}`)
    this.shape = spec.shape
    this.dtype = spec.dtype
    this.#library = library
    this.#pointer = pointer
    live++
    net.register(this, { library, pointer }, this)
  }

  /** New memory, zeroed or copied from `data`. */
  static allocate(library: Library, spec: TensorSpec, data?: TypedArray): NativeTensor {
    const { shape, dtype } = spec
    const pointer = library.api.TF_AllocateTensor(nativeTypes[dtype], shape, shape.length, bytesOf(spec))
    const tensor = new NativeTensor(library, { shape: [...shape], dtype }, pointer)
    if (data === undefined) tensor.data.fill(0)
    else tensor.data.set(data)
    return tensor
  }

  get data(): TypedArray {
    if (this.#state !== 'live')
      throw new EngineError(
        'tensor-disposed',
        `A tensor ${describeSpec(this)} was read after it had been disposed of`,
        {
          hint: 'Copy what is needed for longer (`data.slice()`) before disposing.',
        },
      )
    this.#view ??= this.#makeView()
    return this.#view
  }

  #makeView(): TypedArray {
    const bytes = bytesOf(this)
    const address = bytes === 0 ? null : this.#library.api.TF_TensorData(this.#pointer)
    if (address === null) return viewOf(this.dtype, new ArrayBuffer(0))
    const buffer = this.#library.view(address, bytes)
    // Whoever holds the view only must not lose the memory to the net: the buffer keeps its tensor alive.
    Object.defineProperty(buffer, owner, { value: this })
    return viewOf(this.dtype, buffer)
  }

  /** The native handle, which stays valid until the matching `unpin`. */
  pin(): Pointer {
    if (this.#state !== 'live')
      throw new EngineError(
        'tensor-disposed',
        `A tensor ${describeSpec(this)} was used after it had been disposed of`,
        {
          hint: 'Dispose of a tensor after its last use.',
        },
      )
    this.#pins++
    return this.#pointer
  }

  unpin(): void {
    assert(this.#pins > 0, 'unpinned more often than pinned')
    this.#pins--
    this.#release()
  }

  dispose(): void {
    if (this.#state !== 'live') return
    this.#state = 'disposed'
    this.#release()
  }

  #release(): void {
    if (this.#state !== 'disposed' || this.#pins > 0) return
    this.#state = 'freed'
    net.unregister(this)
    free(this.#library, this.#pointer)
  }
}

/** The tensor itself where it is native; otherwise a copy, which is the only one on the way into a run. */
export function toNative(library: Library, tensor: HostTensor): { native: NativeTensor; copied: boolean } {
  if (tensor instanceof NativeTensor) return { native: tensor, copied: false }
  return { native: NativeTensor.allocate(library, tensor, tensor.data), copied: true }
}
