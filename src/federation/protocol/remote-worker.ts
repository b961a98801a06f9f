// SPDX-License-Identifier: Apache-2.0
/**
 * A worker as the server sees it: what is sent to it and what it may answer. Everything it sends is checked here for form,
 * order, size and finiteness; what it means for the model is for server.ts to say.
 */

import { type PublicError, publicError } from '../../errors.ts'
import type { Connection } from '../../transport/connection.ts'
import { type PushRules, verifyPush } from '../admission.ts'
import { claim, FederationError } from '../federation-error.ts'
import type { Manifest } from '../manifest.ts'
import type { Snapshot } from '../model-state.ts'
import { Assembly, slicesOf } from '../slices.ts'
import type { TensorSet } from '../tensor-set.ts'
import { lost, MessageReader } from './message-reader.ts'
import {
  digestBytes,
  manifestToWire,
  protocolVersion,
  type ServerMessage,
  serverMessage,
  sessionBytes,
  unexpected,
  type WorkerMessage,
  type WorkerMessages,
} from './messages.ts'

/** Names in one worker's scores; models have a handful. */
const maxScores = 64

export interface Hello {
  readonly jobDigest: Uint8Array
  readonly planDigest: Uint8Array
  readonly worker: number
  readonly examples: number
  readonly session: Uint8Array
  /** What the worker found its data to be; for reports only. */
  readonly dataSource: string
}

export interface Push {
  readonly baseVersion: number
  readonly examples: number
  readonly loss: number
  /** The receiver's to release. */
  readonly values: TensorSet
}

/** What became of a push. */
export type PushOutcome = { readonly appliedVersion: number } | { readonly dropped: FederationError }

export class RemoteWorker<Peer> {
  readonly connection: Connection<Peer, ServerMessage, WorkerMessage>
  readonly #reader: MessageReader<WorkerMessage>
  /** Version of the parameters that were sent completely. */
  #holds: number | undefined

  constructor(connection: Connection<Peer, ServerMessage, WorkerMessage>) {
    this.connection = connection
    this.#reader = new MessageReader(connection.incoming)
  }

  async hello(): Promise<Hello> {
    const hello = await this.#expect('hello')
    if (hello.protocol !== protocolVersion) {
      throw new FederationError(
        'protocol-unsupported',
        `expected protocol version ${protocolVersion}, got ${hello.protocol}`,
        { hint: 'Server and workers must run the same version of Cloister.' },
      )
    }
    verifyLength('the job digest', hello.jobDigest, digestBytes)
    verifyLength('the data-plan digest', hello.planDigest, digestBytes)
    verifyLength('the session', hello.session, sessionBytes)
    verifyShort('the data source', hello.dataSource, maxDataSourceCharacters)
    return hello
  }

  async welcome(manifest: Manifest, version: number, totalUpdates: number): Promise<void> {
    await this.#send({ case: 'welcome', value: { manifest: manifestToWire(manifest), version, totalUpdates } })
  }

  /** Parameters travel only if the worker does not hold this version yet. The snapshot stays the caller's. */
  async assign(task: 'train' | 'evaluate', { version, parameters }: Snapshot): Promise<void> {
    const held = this.#holds === version
    await this.#send({ case: 'assignment', value: { version, evaluate: task === 'evaluate', held } })
    if (held) return
    for (const slices of slicesOf(parameters.tensors)) {
      await this.#send({ case: 'slices', value: { slices } })
    }
    this.#holds = version
  }

  /** `memory` is taken when the header has come and passed the rules, and released again should the rest be wrong. */
  async push(rules: PushRules, memory: () => TensorSet): Promise<Push> {
    const { baseVersion, examples, loss } = await this.#expect('push')
    verifyPush({ baseVersion, examples }, rules)
    if (!Number.isFinite(loss)) {
      throw new FederationError('loss-not-finite', `expected a finite loss, got ${loss}`, {
        hint: 'Training diverged: lower the learning rate, lengthen the warm-up, or look for bad examples.',
      })
    }
    const values = memory()
    try {
      const assembly = new Assembly(values.manifest, values.tensors)
      while (!assembly.complete) assembly.accept((await this.#expect('slices')).slices)
      return { baseVersion, examples, loss, values }
    } catch (error) {
      values.release()
      throw error
    }
  }

  async scores(version: number): Promise<Readonly<Record<string, number>>> {
    const scores = await this.#expect('scores')
    if (scores.version !== version) {
      throw new FederationError('scores-version-mismatch', `expected version ${version}, got ${scores.version}`, {
        hint: 'The worker does not follow the protocol: compare its version with ours.',
      })
    }
    const sums = Object.entries(scores.sums)
    if (sums.length > maxScores) {
      throw new FederationError('scores-malformed', `expected at most ${maxScores} sums, got ${sums.length}`, {
        hint: 'The worker does not follow the protocol: compare its version with ours.',
      })
    }
    for (const [name, sum] of sums) {
      if (!Number.isFinite(sum)) {
        throw new FederationError('scores-malformed', `${claim(name)}: expected a finite sum, got ${sum}`, {
          hint: 'The model scored its held-out examples with values that are not numbers.',
        })
      }
    }
    return scores.sums
  }

  async answer(outcome: PushOutcome): Promise<void> {
    await this.#send(
      'dropped' in outcome
        ? { case: 'dropped', value: publicError(outcome.dropped) }
        : { case: 'applied', value: { version: outcome.appliedVersion } },
    )
  }

  async finish(version: number, scores: Readonly<Record<string, number>>): Promise<void> {
    await this.#send({ case: 'finished', value: { version, scores: { ...scores } } })
    await this.close()
  }

  /** Says why and ends the stream, as `close` does. */
  async refuse(error: unknown): Promise<void> {
    const told = publicError(error)
    try {
      await this.#send({ case: 'refused', value: told })
      await this.close(told)
    } catch {
      // The worker is gone: it cannot be told.
      this.connection.destroy()
    }
  }

  /** Ends our half of the stream, waits for the worker to end its own, and then the connection has served. */
  async close(reason?: PublicError): Promise<void> {
    await this.connection.close(reason)
    await this.#reader.drain()
    this.connection.destroy()
  }

  /** Waits for `work` and listens: rejects as soon as the worker goes away or says something. */
  async during<T>(work: Promise<T>): Promise<T> {
    return await this.#reader.while(work, ({ message }) =>
      message.case === 'leave' ? left(message.value) : unexpected('silence until the answer', message.case),
    )
  }

  async #expect<Kind extends keyof WorkerMessages>(kind: Kind): Promise<WorkerMessages[Kind]> {
    const { message } = await this.#reader.read()
    if (message.case === kind) return message.value as WorkerMessages[Kind]
    throw message.case === 'leave' ? left(message.value) : unexpected(kind, message.case)
  }

  async #send(message: Parameters<typeof serverMessage>[0]): Promise<void> {
    try {
      await this.connection.send(serverMessage(message))
    } catch (cause) {
      throw lost('the connection broke', cause)
    }
  }
}

function left({ code, message }: { code: string; message: string }): FederationError {
  return new FederationError('worker-left', `the worker left: ${claim(code)}: ${claim(message)}`, {
    hint: "See the worker's log.",
  })
}

/** Reports stay short, whoever writes them. */
const maxDataSourceCharacters = 32

function verifyShort(what: string, text: string, most: number): void {
  if (text.length <= most) return
  throw new FederationError('hello-malformed', `${what}: expected at most ${most} characters, got ${text.length}`, {
    hint: 'The worker does not follow the protocol: compare its version with ours.',
  })
}

function verifyLength(what: string, bytes: Uint8Array, expected: number): void {
  if (bytes.length === expected) return
  throw new FederationError('hello-malformed', `${what}: expected ${expected} bytes, got ${bytes.length}`, {
    hint: 'The worker does not follow the protocol: compare its version with ours.',
  })
}
