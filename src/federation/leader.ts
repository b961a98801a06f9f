// SPDX-License-Identifier: Apache-2.0
/** The leader of a job's servers: what it knows of its followers, and what it tells them. */
import { publicError } from '../errors.ts'
import type { Connection } from '../transport/connection.ts'
import { hex, sameBytes } from './admission.ts'
import { Deferred } from './deferred.ts'
import { claim, FederationError } from './federation-error.ts'
import type { GroupOptions, Holdings, PushPlace } from './group.ts'
import type { ServerHello } from './protocol/gen/cloister/v1/federation_pb.ts'
import { lost, type MessageReader } from './protocol/message-reader.ts'
import { type ServerMessage, serverMessage, unexpected, type WorkerMessage } from './protocol/messages.ts'
import { verifyProtocol } from './protocol/worker-claims.ts'
import { scattered, serversSetBack } from './server-ends.ts'

export interface LeaderOptions extends GroupOptions {
  /** The job lets servers go on from less than was once on disk everywhere. */
  readonly acceptRollback?: boolean
}

type FollowerConnection = Connection<unknown, ServerMessage, WorkerMessage>

interface Link {
  readonly connection: FollowerConnection
  readonly reader: MessageReader<WorkerMessage>
  readonly holdings: Holdings
  /** By worker: the push that this follower reported last. */
  readonly held: Map<number, Omit<PushPlace, 'worker'>>
  /** Step → why it could not be saved; empty when it was. */
  readonly saved: Map<number, string>
}

/** The leader's side. With one server there is nobody to lead, and nothing waits. */
export class Leader {
  readonly kind = 'leader'
  readonly #options: LeaderOptions
  #links = new Map<number, Link>()
  /** How those went whose link we ended. */
  #left: 'finished' | 'refused' = 'finished'
  #gathered = new Deferred<void>()
  #broken = new Deferred<never>()
  /** Asked again whenever a follower says something. */
  #waiting: { readonly when: () => boolean; readonly done: Deferred<void> }[] = []

  constructor(options: LeaderOptions) {
    this.#options = options
  }

  /** Rejects when a server is lost: then nothing of this epoch counts but what is on disk. */
  get broken(): Promise<never> {
    return this.#broken.promise
  }

  /** A follower's connection, whose first message is its hello. Says how it went when it is gone. */
  async attend(
    connection: FollowerConnection,
    reader: MessageReader<WorkerMessage>,
    hello: ServerHello,
    onAdmitted: () => void,
  ): Promise<'finished' | 'lost' | 'refused' | 'replaced'> {
    this.#verify(hello)
    onAdmitted()
    const link: Link = { connection, reader, holdings: hello, held: new Map(), saved: new Map() }
    const before = this.#links.get(hello.server)
    this.#links.set(hello.server, link)
    if (before !== undefined) {
      // What it had was of an epoch that it has left, though nobody told us.
      before.connection.destroy()
      this.#break(scattered(hello.server, lost('it came back on another connection')))
    }
    if (this.#links.size === this.#options.servers - 1) this.#gathered.resolve()
    try {
      for (;;) this.#take(link, (await reader.read()).message)
    } catch (error) {
      connection.destroy()
      const now = this.#links.get(hello.server)
      if (now !== link) return now === undefined ? this.#left : 'replaced'
      this.#links.delete(hello.server)
      this.#break(scattered(hello.server, error))
      return 'lost'
    }
  }

  /**
   * When all are there: the newest step that everybody has; 0 when there is none. Where one of them knows that a newer one
   * was on disk everywhere, somebody's checkpoints were lost or set back: then nobody goes on, and nothing is deleted.
   */
  async begin(own: Holdings, signal: AbortSignal): Promise<number> {
    while (this.#links.size < this.#options.servers - 1) {
      this.#gathered = new Deferred<void>()
      await orAborted(this.#gathered.promise, signal)
    }
    this.#broken = new Deferred<never>()
    const all = new Map([[0, own], ...[...this.#links].map(([server, { holdings }]) => [server, holdings] as const)])
    const common = own.steps.filter((step) => [...all.values()].every(({ steps }) => steps.includes(step)))
    const step = Math.max(0, ...common)
    if (!this.#options.acceptRollback && [...all.values()].some(({ durableStep }) => durableStep > step)) {
      const error = serversSetBack(step, all)
      this.#left = 'refused'
      await this.#end({ case: 'refused', value: publicError(error) })
      throw error
    }
    this.#tell({ case: 'serverWelcome', value: { step } })
    return step
  }

  /** Ends an epoch: followers join anew, with the steps that they have by then. */
  regroup(): void {
    if (this.#options.servers === 1) return
    for (const { connection } of this.#links.values()) connection.destroy()
    this.#links.clear()
    this.#waiting = []
  }

  /** Resolves once every follower holds this very push. One of a session that is over, or of before, does not pass for it. */
  async everywhere({ worker, session, pull }: PushPlace): Promise<void> {
    const isThere = ({ held }: Link): boolean => {
      const reported = held.get(worker)
      return reported?.pull === pull && sameBytes(reported.session, session)
    }
    await this.#when(() => [...this.#links.values()].every(isThere))
  }

  announceRound(baseVersion: number, workers: readonly number[]): void {
    this.#tell({ case: 'round', value: { baseVersion, workers: [...workers] } })
  }

  /** Resolves when every follower has it on disk. */
  async save(step: number): Promise<void> {
    this.#tell({ case: 'save', value: { step } })
    await this.#when(() => [...this.#links.values()].every(({ saved }) => saved.has(step)))
    for (const [server, { saved }] of this.#links) {
      const failure = saved.get(step)
      if (failure === undefined || failure === '') continue
      throw new FederationError('checkpoint-unusable', `step ${step}: server ${server} could not save it: ${failure}`, {
        hint: 'See its log. Training goes on; the step before stays the one to go back to.',
      })
    }
  }

  /** Every server has it on disk: followers remember that, as workers do. */
  declareDurable(step: number): void {
    this.#tell({ case: 'durable', value: { step } })
  }

  async complete(stopped: boolean): Promise<void> {
    await this.#end({ case: 'complete', value: { stopped } })
  }

  async #end(message: Parameters<typeof serverMessage>[0]): Promise<void> {
    const links = [...this.#links.values()]
    this.#links.clear()
    await Promise.allSettled(
      links.map(async (link) => {
        await this.#send(link, message)
        await link.connection.close()
        await link.reader.drain()
        link.connection.destroy()
      }),
    )
  }

  #verify({ protocol, jobDigest, placementDigest, server }: ServerHello): void {
    verifyProtocol(protocol)
    const { servers } = this.#options
    if (server < 1 || server >= servers) {
      throw new FederationError('server-index-unknown', `expected a follower from 1 to ${servers - 1}, got ${server}`, {
        hint: 'The job says how many servers there are; the leader is server 0.',
      })
    }
    verifySame('job-mismatch', 'job', this.#options.jobDigest, jobDigest)
    verifySame('placement-mismatch', 'placement', this.#options.placementDigest, placementDigest)
  }

  #take(link: Link, message: WorkerMessage['message']): void {
    if (message.case === 'held') link.held.set(message.value.worker, message.value)
    else if (message.case === 'saved') {
      link.saved.set(message.value.step, claim(message.value.failure))
    } else throw unexpected('held or saved', message.case)
    this.#waiting = this.#waiting.filter(({ when, done }) => {
      if (!when()) return true
      done.resolve()
      return false
    })
  }

  async #when(when: () => boolean): Promise<void> {
    if (when()) return
    const done = new Deferred<void>()
    this.#waiting.push({ when, done })
    await Promise.race([done.promise, this.#broken.promise])
  }

  #tell(message: Parameters<typeof serverMessage>[0]): void {
    for (const link of this.#links.values()) {
      this.#send(link, message).catch(() => link.connection.destroy())
    }
  }

  async #send({ connection }: Link, message: Parameters<typeof serverMessage>[0]): Promise<void> {
    await connection.send(serverMessage(message))
  }

  #break(error: FederationError): void {
    this.#broken.reject(error)
  }
}

function verifySame(
  code: 'job-mismatch' | 'placement-mismatch',
  what: string,
  ours: Uint8Array,
  theirs: Uint8Array,
): void {
  if (sameBytes(ours, theirs)) return
  throw new FederationError(code, `expected the ${what} ${hex(ours)}, got a server of the ${what} ${hex(theirs)}`, {
    hint: 'Give all servers the same job file and the same version of Cloister.',
  })
}

function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void =>
      reject(
        new FederationError('server-stopping', 'expected all servers of the job, got a stop while waiting for them', {
          hint: 'Somebody stopped this server before training began.',
        }),
      )
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
