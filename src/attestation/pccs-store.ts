// SPDX-License-Identifier: Apache-2.0
/**
 * Documents of a PCCS held in memory and on disk: asked for when absent, asked for again before they expire, and kept when the service
 * fails, since whether a late document still counts is the policy's to say. The host can withhold any of this, or serve an old copy.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import type { CollateralCache } from './pccs-cache.ts'
import { PccsError } from './pccs-error.ts'
import { getCollateral, type HttpLimits } from './pccs-http.ts'
import type { Document, Resource } from './pccs-resources.ts'

export interface StoreOptions {
  /** Without one, documents live as long as the process. */
  readonly cache: CollateralCache | undefined
  readonly cacheOnly: boolean
  readonly secureCertificate: boolean
  readonly limits: HttpLimits
  readonly now: () => Date
  readonly random: () => number
  readonly report: EventSink
}

export interface Held<D extends Document = Document> {
  readonly resource: Resource<D>
  readonly document: D
  readonly fetchedAt: Date
  /** When to ask again. */
  readonly dueAt: number
  /** From disk, where anyone may have written. */
  readonly fromCache: boolean
}

/** A service that is down or behind is asked no oftener. */
const minIntervalMs = 60_000
const longestTimerMs = 24 * 3_600_000
/** A peer's quote decides which platforms are asked about: the oldest make room. */
const maxHeld = 256

export class CollateralStore {
  readonly #options: StoreOptions
  readonly #held = new Map<string, Held>()
  readonly #underway = new Map<string, Promise<Held>>()
  readonly #closing = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #onChange: (() => void) | undefined

  constructor(options: StoreOptions) {
    this.#options = options
  }

  /** Memory, disk, network. */
  async load<D extends Document>(resource: Resource<D>): Promise<Held<D>> {
    const held = (this.#held.get(resource.url.href) as Held<D> | undefined) ?? (await this.#readCache(resource))
    const nowMs = this.#options.now().getTime()
    if (held !== undefined && (nowMs < held.dueAt || this.#options.cacheOnly)) return held
    try {
      return await this.fetch(resource)
    } catch (thrown) {
      if (held === undefined || this.#closing.signal.aborted) throw thrown
      this.#options.report({ kind: 'warning', error: publicError(thrown) })
      return this.#hold({ ...held, dueAt: nowMs + minIntervalMs })
    }
  }

  /** From the service, whatever is held. Whoever else wants the same waits for the same answer. */
  fetch<D extends Document>(resource: Resource<D>): Promise<Held<D>> {
    const id = resource.url.href
    const underway = this.#underway.get(id) as Promise<Held<D>> | undefined
    if (underway !== undefined) return underway
    const started = this.#fetchNow(resource).finally(() => this.#underway.delete(id))
    this.#underway.set(id, started)
    return started
  }

  /** From now on documents are asked for again before they expire; `onChange` says that one is different from before. */
  keepFresh(onChange: () => void): void {
    this.#onChange = onChange
    this.#schedule()
  }

  /** Asks again for all that is held. True if anything is different; what cannot be had stays as it is and is reported. */
  refresh(): Promise<boolean> {
    return this.#refreshEach([...this.#held.values()])
  }

  close(): void {
    this.#onChange = undefined
    clearTimeout(this.#timer)
    this.#closing.abort(new PccsError('pccs-unreachable', 'closed while asking', { hint: 'This run is ending.' }))
  }

  async #readCache<D extends Document>(resource: Resource<D>): Promise<Held<D> | undefined> {
    const cached = await this.#options.cache?.read(resource.url.href)
    if (cached === undefined) return undefined
    try {
      const document = resource.fromCache(cached.document)
      const { fetchedAt } = cached
      // Fetched in the future: the clock or the file was tampered with.
      const dueAt = fetchedAt > this.#options.now() ? 0 : dueTime(resource, document, fetchedAt)
      return this.#hold({ resource, document, fetchedAt, dueAt, fromCache: true })
    } catch (thrown) {
      // Damaged is as good as absent, and the next answer replaces it.
      this.#options.report({ kind: 'warning', error: publicError(thrown) })
      return undefined
    }
  }

  async #fetchNow<D extends Document>(resource: Resource<D>): Promise<Held<D>> {
    const { cache, cacheOnly, limits, secureCertificate, now, random, report } = this.#options
    if (cacheOnly) {
      throw new PccsError('collateral-not-cached', `expected ${resource.url.pathname} in the cache, it is not there`, {
        hint: 'local_cache_only forbids asking: fetch once without it, or use an offline bundle.',
      })
    }
    const answer = await getCollateral(resource.url, {
      ...limits,
      secureCertificate,
      headers: resource.headers,
      signal: this.#closing.signal,
      sleep: (delayMs, signal) => sleep(delayMs, undefined, signal ? { signal } : {}),
      random,
    })
    const document = resource.fromAnswer(answer)
    const fetchedAt = now()
    const dueAt = Math.max(dueTime(resource, document, fetchedAt), fetchedAt.getTime() + minIntervalMs)
    await cache?.write(resource.url.href, { fetchedAt, document }).catch((thrown: unknown) => {
      report({ kind: 'warning', error: publicError(thrown) })
    })
    return this.#hold({ resource, document, fetchedAt, dueAt, fromCache: false })
  }

  #hold<D extends Document>(held: Held<D>): Held<D> {
    const id = held.resource.url.href
    this.#held.delete(id)
    this.#held.set(id, held)
    if (this.#held.size > maxHeld) this.#held.delete(this.#held.keys().next().value!)
    this.#schedule()
    return held
  }

  async #refreshEach(due: readonly Held[]): Promise<boolean> {
    const changes = await Promise.all(
      due.map(async (held) => {
        try {
          return !isDeepStrictEqual((await this.fetch(held.resource)).document, held.document)
        } catch (thrown) {
          if (this.#closing.signal.aborted) return false
          this.#options.report({ kind: 'warning', error: publicError(thrown) })
          this.#hold({ ...held, dueAt: this.#options.now().getTime() + minIntervalMs })
          return false
        }
      }),
    )
    const changed = changes.includes(true)
    if (changed) this.#onChange?.()
    return changed
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#onChange === undefined || this.#held.size === 0) return
    const earliest = Math.min(...[...this.#held.values()].map(({ dueAt }) => dueAt))
    const delayMs = Math.min(Math.max(earliest - this.#options.now().getTime(), 0), longestTimerMs)
    this.#timer = setTimeout(() => {
      const nowMs = this.#options.now().getTime()
      void this.#refreshEach([...this.#held.values()].filter(({ dueAt }) => dueAt <= nowMs)).then(() =>
        this.#schedule(),
      )
    }, delayMs).unref()
  }
}

/** Before it expires, with a tenth of its time to spare, and at least as often as configured. */
function dueTime<D extends Document>(resource: Resource<D>, document: D, fetchedAt: Date): number {
  const aged = fetchedAt.getTime() + resource.maxAgeMs
  const validity = resource.validity(document)
  if (validity === undefined) return aged
  const end = validity.nextUpdate.getTime()
  return Math.min(aged, end - (end - validity.issued.getTime()) / 10)
}
