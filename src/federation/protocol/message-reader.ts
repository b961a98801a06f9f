// SPDX-License-Identifier: Apache-2.0
/**
 * Reads one stream of messages and keeps listening while its owner does something else, so that a peer that dies or
 * speaks out of turn is noticed at once and not at the next message we expect.
 */
import { FederationError } from '../federation-error.ts'

export class MessageReader<Message> {
  readonly #iterator: AsyncIterator<Message>
  #next: Promise<IteratorResult<Message>>

  constructor(incoming: AsyncIterable<Message>) {
    this.#iterator = incoming[Symbol.asyncIterator]()
    this.#next = this.#ask()
  }

  async read(): Promise<Message> {
    const result = await this.#next
    if (result.done) throw lost('the peer closed the stream before the end')
    this.#next = this.#ask()
    return result.value
  }

  /** `work`'s result, unless a message comes first: `unasked` gets it and makes the error. */
  async while<T>(work: Promise<T>, unasked: (message: Message) => FederationError): Promise<T> {
    const interruption = this.#next.then((result): never => {
      throw result.done ? lost('the peer closed the stream before the end') : unasked(result.value)
    })
    return await Promise.race([work, interruption])
  }

  /**
   * Takes what still comes, and resolves when the stream has ended, in whichever way. After `close` the transport gives the
   * peer a bounded time for that; a stream that nobody reads would not end before.
   */
  async drain(): Promise<void> {
    try {
      for (;;) await this.read()
    } catch {
      // The end.
    }
  }

  #ask(): Promise<IteratorResult<Message>> {
    const next = this.#iterator.next().catch((cause: unknown) => {
      throw lost('the connection broke', cause)
    })
    // Whoever reads next gets the error; until then it is not unhandled.
    next.catch(() => undefined)
    return next
  }
}

export function lost(what: string, cause?: unknown): FederationError {
  const detail = cause instanceof Error ? `: ${cause.message}` : ''
  return new FederationError('peer-lost', `${what}${detail}`, {
    hint: 'See the log of the other side: it may have stopped, or the network between may have failed.',
    cause,
  })
}
