// SPDX-License-Identifier: Apache-2.0
/**
 * Updates of a table's rows. The rows that any update touches are packed one behind the other and go through the same program
 * as dense tensors do, with their own slots; a row that one of several updates lacks counts as a zero gradient there.
 * Rows that no update touches stay as they are. With SGD and Adagrad that is what a dense update would do; momentum, Adam
 * and Yogi are "lazy": a row's averages decay with the updates that touch it, not with those that do not. No weight decay:
 * a row would pay for it only when touched.
 */
import assert from 'node:assert/strict'
import type { Engine, EngineTensor } from '../engine/engine.ts'
import type { Transfer } from '../models/bfloat16.ts'
import type { EmbeddingTable } from './embedding-table.ts'
import { type Values, valuesOf } from './tensor-set.ts'
import { scalar, type UpdatePrograms } from './update-programs.ts'

/** One worker's gradients of rows. */
export interface RowGradients {
  /** Ascending, each once. */
  readonly ids: Uint32Array
  /** ids.length × width. */
  readonly gradients: Values
  /** What `EmbeddingTable.gather` gave for these ids, to spare looking them up again. */
  readonly places?: Int32Array
}

/** A segment of the program that has no weight decay. */
const role = 'unregularised'
const leastElements = 1024

export class RowUpdater {
  readonly #engine: Engine
  readonly #programs: UpdatePrograms
  /** Memory for inputs, by size: what is allocated outside of V8's heap for each update makes it collect garbage all the time. */
  readonly #inputs = new Map<string, Record<string, EngineTensor>>()

  constructor(engine: Engine, programs: UpdatePrograms) {
    this.#engine = engine
    this.#programs = programs
  }

  /**
   * Computes what `updates`, in the order of their workers, make of the rows; the table changes when the result is called, so
   * that what belongs together changes at once. `shares` are each update's part of the examples. One step at a time.
   */
  async step(
    table: EmbeddingTable,
    updates: readonly RowGradients[],
    shares: readonly number[],
    rate: number,
  ): Promise<() => void> {
    const ids = unionOf(updates.map((update) => update.ids))
    if (ids.length === 0) return () => {}
    const { width } = table.spec
    const places = (updates.length === 1 ? updates[0]?.places : undefined) ?? table.places(ids)
    // A power of two: as few programs as possible.
    const elements = 2 ** Math.ceil(Math.log2(Math.max(ids.length * width, leastElements)))
    const states = ['parameter', ...table.slotNames].map((name) => `${name}/${role}`)
    const gradients = updates.map((_, index) => `update/${index}/${role}`)
    const inputs = this.#inputsOf(table, states, gradients, elements)
    table.read(
      places,
      states.map((name) => numbersOf(inputs[name])),
    )
    for (const [index, update] of updates.entries()) {
      spread(update, ids, width, valuesOf(inputs[gradients[index]!]))
    }
    const scalars = shares.map((share, index) => [`share/${index}`, scalar(share)] as const)
    const program = this.#programs.get(updates.length, new Map([[role, elements]]))
    const given = { ...inputs, ...Object.fromEntries(scalars), rate: scalar(rate) }
    const outputs = await program.run(given, { outputs: states })
    return () => {
      table.write(
        places,
        states.map((name) => numbersOf(outputs[name])),
      )
      for (const output of Object.values(outputs)) output.dispose()
    }
  }

  close(): void {
    for (const inputs of this.#inputs.values()) for (const input of Object.values(inputs)) input.dispose()
    this.#inputs.clear()
  }

  #inputsOf(
    table: EmbeddingTable,
    states: readonly string[],
    gradients: readonly string[],
    elements: number,
  ): Record<string, EngineTensor> {
    // Tables are updated at once: each has its own.
    const key = `${table.spec.name} ${gradients.length} ${elements}`
    const known = this.#inputs.get(key)
    if (known !== undefined) return known
    const make = (dtype: Transfer) => (name: string) =>
      [name, this.#engine.tensor({ shape: [elements], dtype })] as const
    const { transfer } = this.#programs
    const inputs = Object.fromEntries([...states.map(make('float32')), ...gradients.map(make(transfer))])
    this.#inputs.set(key, inputs)
    return inputs
  }
}

/** Of ascending ids: all of them, ascending, each once. */
export function unionOf(lists: readonly Uint32Array[]): Uint32Array {
  const [first = new Uint32Array(), ...others] = lists
  return others.reduce(merged, first)
}

function merged(a: Uint32Array, b: Uint32Array): Uint32Array {
  const all = new Uint32Array(a.length + b.length)
  let count = 0
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    const x = a[i] ?? Number.POSITIVE_INFINITY
    const y = b[j] ?? Number.POSITIVE_INFINITY
    all[count++] = Math.min(x, y)
    if (x <= y) i++
    if (y <= x) j++
  }
  return all.subarray(0, count)
}

/** Gradients to where their rows are among `ids`, zeros to the others. */
function spread(update: RowGradients, ids: Uint32Array, width: number, out: Values): void {
  assert.equal(update.gradients.length, update.ids.length * width)
  if (update.ids.length === ids.length) {
    out.set(update.gradients)
    return
  }
  out.fill(0, 0, ids.length * width)
  for (let row = 0, to = 0; row < update.ids.length; row++, to++) {
    while (ids[to] !== update.ids[row]) to++
    for (let column = 0; column < width; column++) {
      out[to * width + column] = update.gradients[row * width + column]!
    }
  }
}

function numbersOf(tensor: EngineTensor | undefined): Float32Array {
  assert(tensor?.data instanceof Float32Array)
  return tensor.data
}
