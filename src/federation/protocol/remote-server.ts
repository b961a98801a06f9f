// SPDX-License-Identifier: Apache-2.0
/**
 * The server as a worker sees it. Failures of the connection come out as `peer-lost`, after which the worker may
 * join again; what the server refused comes out under the server's own code.
 */

import type { PublicError } from '../../errors.ts'
import type { Connection } from '../../transport/connection.ts'
import { refusalFromPeer } from '../federation-error.ts'
import { type Manifest, verifySameManifest } from '../manifest.ts'
import { Assembly, slicesOf } from '../slices.ts'
import { lost, MessageReader } from './message-reader.ts'
import {
  manifestFromWire,
  protocolVersion,
  type ServerMessage,
  type ServerMessages,
  unexpected,
  type WorkerMessage,
  workerMessage,
} from './messages.ts'
import type { Hello, PushOutcome } from './remote-worker.ts'

export type Assignment =
  | { readonly task: 'train' | 'evaluate'; readonly version: number }
  | { readonly task: 'end'; readonly version: number; readonly scores: Readonly<Record<string, number>> }

export interface OutgoingPush {
  readonly baseVersion: number
  readonly examples: number
  readonly loss: number
  /** By manifest index; read until `push` resolves. */
  readonly values: readonly Float32Array[]
}

export class RemoteServer<Peer> {
  readonly connection: Connection<Peer, WorkerMessage, ServerMessage>
  readonly #reader: MessageReader<ServerMessage>
  readonly #manifest: Manifest
  /** Where parameters are put, by manifest index. */
  readonly #parameters: readonly Float32Array[]
  #holds: number | undefined

  constructor(
    connection: Connection<Peer, WorkerMessage, ServerMessage>,
    manifest: Manifest,
    parameters: readonly Float32Array[],
  ) {
    this.connection = connection
    this.#reader = new MessageReader(connection.incoming)
    this.#manifest = manifest
    this.#parameters = parameters
  }

  /** Throws what the server refuses, and what differs between its model and ours. */
  async join(hello: Hello): Promise<{ version: number; totalUpdates: number }> {
    await this.#send({ case: 'hello', value: { protocol: protocolVersion, ...hello } })
    const welcome = await this.#expect('welcome')
    verifySameManifest(this.#manifest, manifestFromWire(welcome.manifest))
    return welcome
  }

  /** What to do next. When it resolves, the parameters of that version are in place. */
  async assignment(): Promise<Assignment> {
    const { message } = await this.#read()
    if (message.case === 'finished')
      return { task: 'end', version: message.value.version, scores: message.value.scores }
    if (message.case !== 'assignment') throw unexpected('assignment', message.case)
    const { version, evaluate, held } = message.value
    if (held && version !== this.#holds) {
      throw unexpected(`parameters, as version ${this.#holds ?? 'none'} is held`, `version ${version} as held`)
    }
    if (!held) {
      this.#holds = undefined
      const assembly = new Assembly(this.#manifest, this.#parameters)
      while (!assembly.complete) assembly.accept((await this.#expect('slices')).slices)
      this.#holds = version
    }
    return { task: evaluate ? 'evaluate' : 'train', version }
  }

  async push({ values, ...header }: OutgoingPush): Promise<PushOutcome> {
    await this.#send({ case: 'push', value: header })
    for (const slices of slicesOf(values)) await this.#send({ case: 'slices', value: { slices } })
    const { message } = await this.#read()
    if (message.case === 'applied') return { appliedVersion: message.value.version }
    if (message.case === 'dropped') return { dropped: refusalFromPeer(message.value) }
    throw unexpected('applied or dropped', message.case)
  }

  async score(version: number, sums: Readonly<Record<string, number>>): Promise<void> {
    await this.#send({ case: 'scores', value: { version, sums: { ...sums } } })
  }

  /** Says why we go, and goes. */
  async leave(reason: PublicError): Promise<void> {
    const { code, message } = reason
    try {
      await this.connection.send(workerMessage({ case: 'leave', value: { code, message } }))
      await this.close()
    } catch {
      // The server is gone: it cannot be told.
      this.connection.destroy()
    }
  }

  /** Ends our half of the stream, waits for the server to end its own, and then the connection has served. */
  async close(): Promise<void> {
    await this.connection.close()
    await this.#reader.drain()
    this.connection.destroy()
  }

  async #read(): Promise<ServerMessage> {
    const received = await this.#reader.read()
    if (received.message.case === 'refused') throw refusalFromPeer(received.message.value)
    return received
  }

  async #expect<Kind extends keyof ServerMessages>(kind: Kind): Promise<ServerMessages[Kind]> {
    const { message } = await this.#read()
    if (message.case === kind) return message.value as ServerMessages[Kind]
    throw unexpected(kind, message.case)
  }

  async #send(message: Parameters<typeof workerMessage>[0]): Promise<void> {
    try {
      await this.connection.send(workerMessage(message))
    } catch (cause) {
      // Should the server have refused us before the connection broke, reading throws that, which says more.
      await this.#read()
      throw lost('the connection broke', cause)
    }
  }
}
