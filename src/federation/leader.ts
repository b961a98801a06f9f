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
import { lastStepMissing, scattered, serversSetBack } from './server-ends.ts'

export interface LeaderOptions extends GroupOptions {
  /** The job lets servers go on from less than was once on disk everywhere. */
  readonly acceptRollback?: boolean
}

type FollowerConnection = Connection<unknown, ServerMessage, WorkerMessage>

interface Link {
  readonly connection: FollowerConnection
  readonly reader: MessageReader<WorkerMessage>
  readonly holdings: Holdings
  /** It was told from which step it goes on. */
  isWelcome: boolean
  /** By worker: the push that this follower reported last. */
  readonly held: Map<number, Omit<PushPlace, 'worker'>>
  /** Step → why it could not be saved; empty when it was. */
  readonly saved: Map<number, string>
}

/** How training ended: with which step, and whether before its time. */
interface End {
  readonly step: number
  readonly stopped: boolean
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
  #end: End | undefined
  #unheard = new Set<number>()
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
    const end = this.#end
    if (end !== undefined && !hello.steps.includes(end.step)) throw lastStepMissing(hello.server, end.step, hello.steps)
    onAdmitted()
    const link: Link = { connection, reader, holdings: hello, isWelcome: false, held: new Map(), saved: new Map() }
    if (end !== undefined) return await this.#attendLate(link, hello.server, end)
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

  async #attendLate(link: Link, server: number, end: End): Promise<'finished' | 'lost'> {
    try {
      await this.#dismiss(link, server, end)
      return 'finished'
    } catch {
      link.connection.destroy()
      return 'lost' // And may come again.
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
      await this.#close((link) => this.#refuse(link, error))
      throw error
    }
    for (const link of this.#links.values()) link.isWelcome = true
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

  /** Training is over, with `step`. A follower that was lost after it had that on disk is told when it comes back. */
  async complete(end: End): Promise<void> {
    this.#end = end
    for (let server = 1; server < this.#options.servers; server++) this.#unheard.add(server)
    await this.#close((link, server) => this.#dismiss(link, server, end))
  }

  /** Followers that have not heard of the end. */
  get unheard(): readonly number[] {
    return [...this.#unheard]
  }

  async #close(say: (link: Link, server: number) => Promise<void>): Promise<void> {
    const links = [...this.#links]
    this.#links.clear()
    await Promise.allSettled(links.map(([server, link]) => say(link, server)))
  }

  /** One that was away when training ended has its last step: it goes on from there, to the end. */
  async #dismiss(link: Link, server: number, { step, stopped }: End): Promise<void> {
    if (!link.isWelcome) {
      const { steps } = link.holdings
      if (!steps.includes(step)) return await this.#refuse(link, lastStepMissing(server, step, steps))
      await this.#send(link, { case: 'serverWelcome', value: { step } })
    }
    await this.#send(link, { case: 'complete', value: { stopped } })
    await this.#part(link)
    this.#unheard.delete(server)
  }

  async #refuse(link: Link, error: FederationError): Promise<void> {
    await this.#send(link, { case: 'refused', value: publicError(error) })
    await this.#part(link)
  }

  async #part({ connection, reader }: Link): Promise<void> {
    await connection.close()
    const isAnswered = await reader.drain()
    connection.destroy()
    if (!isAnswered) throw lost('the connection broke before its end was answered')
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
