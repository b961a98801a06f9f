// SPDX-License-Identifier: Apache-2.0
/**
 * After the end: a worker or server that was away when training ended, or is only started now, is told that it is over, so that
 * it ends well instead of looking for servers that are gone. Who that may be is known; how long they look is bounded.
 */
import { publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import { type AdmissionRules, verifyHello } from './admission.ts'
import type { Clock } from './clock.ts'
import { Deferred } from './deferred.ts'
import type { Scores } from './evaluation.ts'
import { serverMessage } from './protocol/messages.ts'
import type { Hello } from './protocol/worker-claims.ts'
import type { Arrival } from './reception.ts'
import { unheard } from './server-ends.ts'
import type { PeerDescription } from './server-options.ts'

export interface FarewellOptions {
  /** Of workers that come now. */
  readonly rules: AdmissionRules
  readonly version: number
  readonly scores: Scores
  /** Names of who does not know yet. */
  readonly missing: readonly string[]
  readonly lateWorkersMs: number
  readonly clock: Clock
  readonly events: EventSink
  /** Ends the waiting. */
  readonly signal: AbortSignal
}

export class Farewell {
  readonly #options: FarewellOptions
  readonly #missing: Set<string>
  readonly #done = new Deferred<void>()

  constructor(options: FarewellOptions) {
    this.#options = options
    this.#missing = new Set(options.missing)
  }

  /** Resolves when everybody knows, when time is up, or at a stop. */
  async wait(): Promise<void> {
    const { clock, events, lateWorkersMs, signal } = this.#options
    if (this.#missing.size === 0 || lateWorkersMs === 0 || signal.aborted) return
    events({ kind: 'warning', error: publicError(unheard([...this.#missing], lateWorkersMs)) })
    const end = (): void => this.#done.resolve()
    const cancel = clock.after(lateWorkersMs, end)
    signal.addEventListener('abort', end, { once: true })
    await this.#done.promise
    signal.removeEventListener('abort', end)
    cancel()
  }

  /** Throws what is wrong with its Hello, as during training. */
  async attend<Peer>(
    { connection, reader }: Arrival<Peer>,
    hello: Hello,
    { evidence, workerIndex }: Pick<PeerDescription, 'evidence' | 'workerIndex'>,
  ): Promise<void> {
    const { events, rules, scores, version } = this.#options
    verifyHello(hello, { ...rules, workerIndex })
    const peer = `worker${hello.worker}`
    events({ kind: 'peer-joined', peer, evidence })
    try {
      await connection.send(serverMessage({ case: 'finished', value: { version, scores: { ...scores } } }))
      await connection.close()
      await reader.drain()
      events({ kind: 'peer-left', peer, reason: 'finished' })
      this.heard(peer)
    } catch (error) {
      // It is gone, and may come again.
      events({ kind: 'peer-left', peer, reason: 'lost', error: publicError(error) })
    }
    connection.destroy()
  }

  /** This one was told. */
  heard(peer: string): void {
    this.#missing.delete(peer)
    if (this.#missing.size === 0) this.#done.resolve()
  }
}
