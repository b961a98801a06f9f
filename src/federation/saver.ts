// SPDX-License-Identifier: Apache-2.0
/**
 * Saves a server's state beside training: what is saved is taken at once, between two updates, and written while training
 * goes on; while one save is under way no other begins. A step counts as durable once every server has it on disk: then
 * workers are told, and hold the job to it.
 */
import { publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import type { Clock } from './clock.ts'
import type { ModelState } from './model-state.ts'
import { type Checkpoints, contentOf, type Progress } from './saved-state.ts'

export interface SaverOptions {
  readonly checkpoints: Checkpoints | undefined
  /** The step that this epoch began with. */
  readonly begunAt: number
  /** Whether `elsewhere` speaks for all servers; a follower is told with `declare`. */
  readonly leads: boolean
  readonly clock: Clock
  readonly events: EventSink
}

export class Saver {
  readonly #options: SaverOptions
  #durableStep: number
  #newest: number
  #begunAtMs: number
  #saving: Promise<void> | undefined
  #declaring: Promise<void> | undefined

  constructor(options: SaverOptions) {
    this.#options = options
    this.#durableStep = options.begunAt
    this.#newest = options.begunAt
    this.#begunAtMs = options.clock.now()
  }

  /** Since a save, or this epoch, began. */
  get sinceMs(): number {
    return this.#options.clock.now() - this.#begunAtMs
  }

  /** The newest step that all servers have on disk. */
  get durableStep(): number {
    return this.#durableStep
  }

  /**
   * Takes the state as it is now. `elsewhere` resolves when the other servers have saved theirs, and rejects when one could
   * not. Failures are reported and change nothing; the result is the failure's message, empty when there was none.
   */
  save(
    model: ModelState,
    step: number,
    progress: Progress,
    elsewhere: () => Promise<void>,
  ): Promise<string> | undefined {
    const { checkpoints, clock, events, leads } = this.#options
    if (checkpoints === undefined || this.#saving !== undefined || step <= this.#newest) return undefined
    const startedAt = clock.now()
    this.#begunAtMs = startedAt
    const snapshot = model.snapshot()
    const capture = model.captureRows()
    const since = this.#newest === 0 ? undefined : this.#newest
    const write = async (): Promise<number> => {
      try {
        const { bytes } = await checkpoints.write(contentOf({ snapshot, capture, since }, step, progress))
        capture.commit()
        this.#newest = step
        return bytes
      } catch (error) {
        capture.cancel()
        throw error
      } finally {
        snapshot.release()
      }
    }
    const others = elsewhere()
    others.catch(() => undefined)
    const saved = (async () => {
      try {
        const bytes = await write()
        await others
        // Before anybody is told: a leader that forgot would begin anew when another server comes without its checkpoints.
        if (leads) await this.#declare(checkpoints, step)
        events({ kind: 'checkpointed', step, bytes, ms: clock.now() - startedAt })
        return ''
      } catch (error) {
        const told = publicError(error)
        events({ kind: 'warning', error: told })
        return told.message
      } finally {
        this.#saving = undefined
      }
    })()
    this.#saving = saved.then(() => undefined)
    return saved
  }

  /** The leader says that every server has this step on disk. */
  declare(step: number): void {
    const { checkpoints, events } = this.#options
    if (checkpoints === undefined) return
    this.#declaring = this.#declare(checkpoints, step).catch((error: unknown) => {
      events({ kind: 'warning', error: publicError(error) })
    })
  }

  /** Resolves when nothing is being written. */
  async idle(): Promise<void> {
    await Promise.all([this.#saving, this.#declaring])
  }

  async #declare(checkpoints: Checkpoints, step: number): Promise<void> {
    await checkpoints.declareDurable(step)
    this.#durableStep = step
  }
}
