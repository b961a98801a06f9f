// SPDX-License-Identifier: Apache-2.0
/**
 * A queue between events and one consumer. Leaving a loop over it loses nothing: a later loop goes on where it ended. It
 * holds what is pushed, so whoever pushes must watch `length`.
 */
export class AsyncQueue<T> implements AsyncIterable<T> {
  #items: T[] = []
  #takers: { resolve: (result: IteratorResult<T>) => void; reject: (error: Error) => void }[] = []
  #end: { error?: Error } | undefined
  readonly #starved: () => void

  /** `starved` is called when the consumer waits and nothing is queued. */
  constructor(starved: () => void = () => {}) {
    this.#starved = starved
  }

  get length(): number {
    return this.#items.length
  }

  get ended(): boolean {
    return this.#end !== undefined
  }

  push(item: T): void {
    if (this.#end !== undefined) return
    const taker = this.#takers.shift()
    if (taker === undefined) this.#items.push(item)
    else taker.resolve({ done: false, value: item })
  }

  /** Ends the queue after what it holds: quietly, or with an error. The first end counts. */
  end(error?: Error): void {
    if (this.#end !== undefined) return
    this.#end = error === undefined ? {} : { error }
    for (const taker of this.#takers.splice(0)) this.#finish(taker.resolve, taker.reject)
  }

  /** Gives back what was queued and ends at once. */
  abort(error?: Error): T[] {
    const dropped = this.#items
    this.#items = []
    this.end(error)
    return dropped
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return { next: () => this.#take() }
  }

  #take(): Promise<IteratorResult<T>> {
    return new Promise((resolve, reject) => {
      if (this.#items.length > 0) resolve({ done: false, value: this.#items.shift()! })
      else if (this.#end !== undefined) this.#finish(resolve, reject)
      else {
        this.#takers.push({ resolve, reject })
        this.#starved()
      }
    })
  }

  #finish(resolve: (result: IteratorResult<T>) => void, reject: (error: Error) => void): void {
    if (this.#end?.error === undefined) resolve({ done: true, value: undefined })
    else reject(this.#end.error)
  }
}
