// SPDX-License-Identifier: Apache-2.0
/** A follower of a job's leader: what it reports, and the commands that it gets. */
import assert from 'node:assert/strict'
import type { Connection } from '../transport/connection.ts'
import { Deferred } from './deferred.ts'
import { FederationError, refusalFromPeer } from './federation-error.ts'
import type { Command, GroupOptions, Holdings, PushPlace } from './group.ts'
import { lost, MessageReader } from './protocol/message-reader.ts'
import {
  protocolVersion,
  type ServerMessage,
  unexpected,
  type WorkerMessage,
  workerMessage,
} from './protocol/messages.ts'
import { scattered } from './server-ends.ts'

type LeaderConnection = Connection<unknown, WorkerMessage, ServerMessage>

export interface FollowerOptions extends GroupOptions {
  readonly server: number
  /** Authenticates the leader; tries again for as long as it makes sense. */
  readonly connect: (signal: AbortSignal) => Promise<LeaderConnection>
}

export class Follower {
  readonly kind = 'follower'
  readonly #options: FollowerOptions
  #connection: LeaderConnection | undefined
  #reader: MessageReader<ServerMessage> | undefined
  #broken = new Deferred<never>()

  constructor(options: FollowerOptions) {
    assert(options.server > 0)
    this.#options = options
  }

  get broken(): Promise<never> {
    return this.#broken.promise
  }

  /** A leader that goes away before it has answered is asked again. */
  async begin(holdings: Holdings, signal: AbortSignal): Promise<number> {
    this.#broken = new Deferred<never>()
    for (;;) {
      try {
        return await this.#join(holdings, signal)
      } catch (error) {
        const isLost = error instanceof FederationError && error.code === 'peer-lost'
        if (!isLost || signal.aborted) throw error
      }
    }
  }

  async #join({ steps, durableStep }: Holdings, signal: AbortSignal): Promise<number> {
    const { connect, jobDigest, placementDigest, server } = this.#options
    const connection = await connect(signal)
    const reader = new MessageReader(connection.incoming)
    this.#connection = connection
    this.#reader = reader
    const abort = (): void => connection.destroy()
    signal.addEventListener('abort', abort)
    if (signal.aborted) abort()
    try {
      await this.#send({
        case: 'serverHello',
        value: { protocol: protocolVersion, jobDigest, placementDigest, server, steps: [...steps], durableStep },
      })
      const { message } = await reader.read()
      if (message.case === 'refused') throw refusalFromPeer(message.value)
      if (message.case !== 'serverWelcome') throw unexpected('serverWelcome', message.case)
      return message.value.step
    } catch (error) {
      connection.destroy()
      throw error
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }

  /** Gives the leader's commands to `take` until it says that training is over, or is lost. */
  async listen(take: (command: Command) => void): Promise<void> {
    const reader = this.#reader
    assert(reader !== undefined)
    try {
      for (;;) {
        const { message } = await reader.read()
        if (message.case === 'round') take({ kind: 'round', ...message.value })
        else if (message.case === 'save') take({ kind: 'save', step: message.value.step })
        else if (message.case === 'durable') take({ kind: 'durable', step: message.value.step })
        else if (message.case === 'complete') {
          take({ kind: 'complete', stopped: message.value.stopped })
          await this.#connection?.close()
          await reader.drain()
          this.#connection?.destroy()
          return
        } else throw unexpected('round, save, durable or complete', message.case)
      }
    } catch (error) {
      this.#broken.reject(scattered(0, error))
    }
  }

  held(push: PushPlace): void {
    this.#send({ case: 'held', value: push }).catch(() => this.#connection?.destroy())
  }

  saved(step: number, failure = ''): void {
    this.#send({ case: 'saved', value: { step, failure } }).catch(() => this.#connection?.destroy())
  }

  regroup(): void {
    this.#connection?.destroy()
  }

  async #send(message: Parameters<typeof workerMessage>[0]): Promise<void> {
    assert(this.#connection !== undefined)
    await this.#connection.send(workerMessage(message)).catch((cause: unknown) => {
      throw lost('the connection to the leader broke', cause)
    })
  }
}
