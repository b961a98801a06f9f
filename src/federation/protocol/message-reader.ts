// SPDX-License-Identifier: Apache-2.0
/** Reads one stream of messages; a broken connection and an early end come out as `peer-lost`. */
import { FederationError } from '../federation-error.ts'

export class MessageReader<Message> {
  readonly #iterator: AsyncIterator<Message>

  constructor(incoming: AsyncIterable<Message>) {
    this.#iterator = incoming[Symbol.asyncIterator]()
  }

  async read(): Promise<Message> {
    const result = await this.#iterator.next().catch((cause: unknown) => {
      throw lost('the connection broke', cause)
    })
    if (result.done) throw lost('the peer closed the stream before the end')
    return result.value
  }

  /**
   * Takes what still comes, and resolves when the stream has ended, in whichever way. After `close` the transport gives the
   * peer a bounded time for that; a stream that nobody reads would not end before. Whether the peer ended it itself.
   */
  async drain(): Promise<boolean> {
    try {
      while (!(await this.#iterator.next()).done);
      return true
    } catch {
      return false
    }
  }
}

export function lost(what: string, cause?: unknown): FederationError {
  const detail = cause instanceof Error ? `: ${cause.message}` : ''
  return new FederationError('peer-lost', `${what}${detail}`, {
    hint: 'See the log of the other side: it may have stopped, or the network between may have failed.',
    cause,
  })
}
