// SPDX-License-Identifier: Apache-2.0
/**
 * Where connections arrive: each says first who it is, within a bounded time, and is then handed to whoever deals with its
 * kind. It outlives the server's epochs: who comes in between waits for the next one.
 */
import { publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import type { Connection, Listener } from '../transport/connection.ts'
import type { Clock } from './clock.ts'
import { Deferred } from './deferred.ts'
import { FederationError } from './federation-error.ts'
import type { ServerHello } from './protocol/gen/cloister/v1/federation_pb.ts'
import { MessageReader } from './protocol/message-reader.ts'
import { type ServerMessage, serverMessage, unexpected, type WorkerMessage } from './protocol/messages.ts'
import { type Hello, parseHello } from './protocol/worker-claims.ts'

export type WorkerConnection<Peer> = Connection<Peer, ServerMessage, WorkerMessage>

export interface Arrival<Peer> {
  readonly connection: WorkerConnection<Peer>
  readonly reader: MessageReader<WorkerMessage>
}

export interface ReceptionOptions<Peer> {
  readonly listener: Listener<Peer, ServerMessage, WorkerMessage>
  readonly describe: (peer: Peer) => { readonly name: string; readonly role: string }
  /** Resolves when the connection has served. */
  readonly onWorker: (arrival: Arrival<Peer>, hello: Hello) => Promise<void>
  readonly onServer: (arrival: Arrival<Peer>, hello: ServerHello) => Promise<void>
  readonly helloMs: number
  readonly clock: Clock
  readonly events: EventSink
}

export class Reception<Peer> {
  readonly #options: ReceptionOptions<Peer>
  readonly #open = new Set<WorkerConnection<Peer>>()
  readonly #attending = new Set<Promise<void>>()
  readonly #failed = new Deferred<never>()
  readonly #accepting: Promise<void>
  #closed = false

  constructor(options: ReceptionOptions<Peer>) {
    this.#options = options
    this.#accepting = this.#accept()
  }

  /** Rejects when nobody can arrive any more. */
  get failed(): Promise<never> {
    return this.#failed.promise
  }

  /** Breaks what is still open, and resolves when nothing is. */
  async close(): Promise<void> {
    this.#closed = true
    for (const connection of this.#open) connection.destroy()
    await Promise.all([this.#options.listener.close(), this.#accepting, ...this.#attending])
  }

  async #accept(): Promise<void> {
    try {
      for await (const connection of this.#options.listener.connections) {
        if (this.#closed) {
          connection.destroy()
          continue
        }
        this.#open.add(connection)
        const attending = this.#attend(connection).finally(() => {
          this.#open.delete(connection)
          this.#attending.delete(attending)
        })
        this.#attending.add(attending)
      }
    } catch (error) {
      this.#failed.reject(error)
    }
  }

  async #attend(connection: WorkerConnection<Peer>): Promise<void> {
    const { describe, events, onServer, onWorker } = this.#options
    const reader = new MessageReader(connection.incoming)
    try {
      const { message } = await this.#first(reader)
      const { role } = describe(connection.peer)
      if (message.case === 'hello' && role === 'worker') {
        await onWorker({ connection, reader }, parseHello(message.value))
      } else if (message.case === 'serverHello' && role === 'follower') {
        await onServer({ connection, reader }, message.value)
      } else throw unexpected(`the hello of a ${role}`, message.case)
    } catch (thrown) {
      const error = publicError(thrown)
      events({ kind: 'peer-refused', address: describe(connection.peer).name, error })
      try {
        await connection.send(serverMessage({ case: 'refused', value: error }))
        await connection.close(error)
        await reader.drain()
      } catch {
        // It is gone: it cannot be told.
      }
      connection.destroy()
    }
  }

  async #first(reader: MessageReader<WorkerMessage>): Promise<WorkerMessage> {
    const { clock, helloMs } = this.#options
    const late = new Deferred<never>()
    const cancel = clock.after(helloMs, () => late.reject(helloLate(helloMs)))
    return await Promise.race([reader.read(), late.promise]).finally(cancel)
  }
}

function helloLate(helloMs: number): FederationError {
  return new FederationError('hello-late', `expected a Hello within ${helloMs} ms, got none`, {
    hint: 'The worker connected and said nothing: see its log, or the network between.',
  })
}
