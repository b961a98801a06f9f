// SPDX-License-Identifier: Apache-2.0
/** Running a finished graph: feeds, fetches and threads. Calls run off the event loop, several at once if need be. */
import assert from 'node:assert'
import { EngineError } from './engine-error.ts'
import { type Graph, native } from './graph.ts'
import type { Library, Pointer } from './library.ts'
import type { GraphOutput } from './lowering.ts'
import type { NativeTensor } from './tensor.ts'

/** Size of `TF_Output` in an array: a pointer and an int, padded. */
const outputBytes = 16
const pointerBytes = 8

export class Session {
  readonly #library: Library
  readonly #pointer: Pointer
  readonly #running = new Set<Promise<unknown>>()

  constructor(library: Library, graph: Graph, threads: number) {
    const { api, attempt } = library
    this.#library = library
    const options = api.TF_NewSessionOptions()
    try {
      const config = sessionConfig(threads)
      const { result, failure } = attempt((status) => {
        api.TF_SetConfig(options, config, config.length, status)
        return api.TF_NewSession(graph.pointer, options, status)
      })
      assert(failure === undefined && result !== null, failure)
      this.#pointer = result
    } finally {
      api.TF_DeleteSessionOptions(options)
    }
  }

  /** Native handles of the fetches, owned by the caller. The feeds stay pinned until the run has ended. */
  run(feeds: readonly (readonly [GraphOutput, NativeTensor])[], fetches: readonly GraphOutput[]): Promise<Pointer[]> {
    const run = this.#run(feeds, fetches)
    this.#running.add(run)
    const finished = () => this.#running.delete(run)
    run.then(finished, finished)
    return run
  }

  /** Waits for runs under way: TensorFlow's C API cannot interrupt one. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#running)
    const { api, attempt } = this.#library
    attempt((status) => api.TF_CloseSession(this.#pointer, status))
    attempt((status) => api.TF_DeleteSession(this.#pointer, status))
  }

  async #run(
    feeds: readonly (readonly [GraphOutput, NativeTensor])[],
    fetches: readonly GraphOutput[],
  ): Promise<Pointer[]> {
    const { api, allocate, view, free } = this.#library
    // One block: feeds' outputs and tensors, then fetches' outputs and tensors, as four arrays of C.
    const sizes = [feeds.length * outputBytes, feeds.length * pointerBytes, fetches.length * outputBytes] as const
    const total = sizes[0] + sizes[1] + sizes[2] + fetches.length * pointerBytes
    const block = allocate(Math.max(total, pointerBytes))
    const status = api.TF_NewStatus()
    const pinned: NativeTensor[] = []
    try {
      const words = new BigUint64Array(view(block, total))
      const at = (bytes: number) => bytes / pointerBytes
      const writeOutput = (word: number, output: GraphOutput): void => {
        const { oper, index } = native(output)
        words[word] = oper
        words[word + 1] = BigInt(index)
      }
      feeds.forEach(([output, tensor], position) => {
        writeOutput(at(position * outputBytes), output)
        words[at(sizes[0]) + position] = tensor.pin()
        pinned.push(tensor)
      })
      fetches.forEach((output, position) => {
        writeOutput(at(sizes[0] + sizes[1] + position * outputBytes), output)
      })
      const results = words.subarray(at(sizes[0] + sizes[1] + sizes[2])).fill(0n)
      const address = (bytes: number): Pointer => block + BigInt(bytes)
      await new Promise<void>((resolve, reject) => {
        const done = (error: unknown) => (error ? reject(error) : resolve())
        api.TF_SessionRun.async(
          this.#pointer,
          null,
          block,
          address(sizes[0]),
          feeds.length,
          address(sizes[0] + sizes[1]),
          address(sizes[0] + sizes[1] + sizes[2]),
          fetches.length,
          null,
          0,
          null,
          status,
          done,
        )
      })
      if (api.TF_GetCode(status) !== 0)
        throw new EngineError('program-failed', `TensorFlow failed: ${api.TF_Message(status)}`, {
          hint: 'Often memory: try a smaller batch. Otherwise an operation got values that it does not accept.',
        })
      return [...results]
    } finally {
      for (const tensor of pinned) tensor.unpin()
      api.TF_DeleteStatus(status)
      free(block)
    }
  }
}

/**
 * ConfigProto: intra_op_parallelism_threads (field 2) and inter_op_parallelism_threads (field 5). TensorFlow keeps one pool
 * of each kind for the process and sizes it when its first session is made: later sessions share that size.
 */
function sessionConfig(threads: number): Uint8Array {
  assert(Number.isInteger(threads) && threads > 0 && threads < 128, `threads: ${threads}`)
  return Uint8Array.of(0x10, threads, 0x28, threads)
}
