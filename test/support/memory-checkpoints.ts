/**
 * Checkpoints that outlive a server but not the test: what storage/checkpoint-store.ts does on disk, as plain values. Rows
 * are given as what has changed since an earlier step, and read back whole.
 */
import type { CheckpointContent, Checkpoints, SavedCheckpoint } from '../../src/federation/saved-state.ts'

interface Kept extends Omit<SavedCheckpoint, 'rows'> {
  readonly rows: ReadonlyMap<string, Row>
}

interface Row {
  readonly table: string
  readonly width: number
  readonly slots: readonly string[]
  readonly id: number
  readonly values: Float32Array
}

export class MemoryCheckpoints implements Checkpoints {
  readonly #kept = new Map<number, Kept>()
  /** What the next write throws. */
  failure: Error | undefined

  get steps(): readonly number[] {
    return [...this.#kept.keys()].sort((a, b) => a - b)
  }

  #durableStep = 0

  get durableStep(): number {
    return this.#durableStep
  }

  async declareDurable(step: number): Promise<void> {
    this.#durableStep = Math.max(this.#durableStep, step)
  }

  /** Another store with the same content up to `step`: what an operator who restores an old copy has. */
  copy(step: number): MemoryCheckpoints {
    const other = new MemoryCheckpoints()
    for (const [at, kept] of this.#kept) if (at <= step) other.#kept.set(at, kept)
    return other
  }

  async write({ step, since, header, tensors, blobs, rows }: CheckpointContent) {
    // Contents are taken later than the call, as a disk would: whoever changes them meanwhile is found out.
    await new Promise(setImmediate)
    if (this.failure !== undefined) throw this.failure
    const all = new Map(since === undefined ? [] : this.#get(since).rows)
    for (const { table, width, slots, ids, values } of rows) {
      const floats = width * (1 + slots.length)
      for (const [at, id] of ids.entries()) {
        all.set(`${table}/${id}`, { table, width, slots, id, values: values.slice(at * floats, (at + 1) * floats) })
      }
    }
    const copied = tensors.map(({ name, shape, data }) => ({ name, shape, data: data.slice() }))
    this.#kept.set(step, { step, header: JSON.parse(JSON.stringify(header)), tensors: copied, blobs, rows: all })
    return { path: 'memory', bytes: 1 }
  }

  async read(step: number): Promise<SavedCheckpoint> {
    const { rows, ...rest } = this.#get(step)
    const blocks = async function* () {
      for (const { id, ...row } of rows.values()) yield { ...row, slots: [...row.slots], ids: Uint32Array.of(id) }
    }
    return { ...rest, rows: blocks() }
  }

  async discardAfter(step: number): Promise<void> {
    for (const at of this.#kept.keys()) if (at > step) this.#kept.delete(at)
  }

  /** Everything of a step in a form that tests compare. */
  state(step: number): unknown {
    const { header, tensors, rows } = this.#get(step)
    const { positions, version } = header as { positions: number[]; version: number }
    const table = [...rows.entries()]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, { values }]) => [key, [...values]])
    return { positions, version, tensors: tensors.map(({ name, data }) => [name, [...data]]), table }
  }

  #get(step: number): Kept {
    const kept = this.#kept.get(step)
    if (kept === undefined) throw new Error(`no step ${step}`)
    return kept
  }
}
