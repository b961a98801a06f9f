// SPDX-License-Identifier: Apache-2.0
/** A server's open connections, and what is done on each. */
import type { WorkerConnection } from './reception.ts'

export class Attendance<Peer> {
  readonly #open = new Map<WorkerConnection<Peer>, Promise<void>>()
  /** Those of them whose orderly end the server waits for: of admitted workers that did nothing wrong. */
  readonly #welcome = new Set<WorkerConnection<Peer>>()

  add(connection: WorkerConnection<Peer>, attending: Promise<void>): Promise<void> {
    const done = attending.finally(() => {
      this.#open.delete(connection)
      this.#welcome.delete(connection)
    })
    this.#open.set(connection, done)
    return done
  }

  welcome(connection: WorkerConnection<Peer>): void {
    this.#welcome.add(connection)
  }

  unwelcome(connection: WorkerConnection<Peer>): void {
    this.#welcome.delete(connection)
  }

  /** Breaks those that the server waits for no longer, and resolves when the others have ended. */
  async endOrderly(): Promise<void> {
    for (const connection of this.#open.keys()) if (!this.#welcome.has(connection)) connection.destroy()
    await Promise.all(this.#open.values())
  }

  async breakAll(): Promise<void> {
    for (const connection of this.#open.keys()) connection.destroy()
    await Promise.all(this.#open.values())
  }
}
