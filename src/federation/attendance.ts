// SPDX-License-Identifier: Apache-2.0
/**
 * Who is with a server: its open connections, the workers in training, and how long it goes on without any. What workers say
 * and get is the server's matter.
 */
import type { AttestedPeer } from '../attestation/policy.ts'
import { publicError } from '../errors.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { Absences, type AbsencesOptions } from './absences.ts'
import type { FederationError } from './federation-error.ts'
import type { RemoteWorker } from './protocol/remote-worker.ts'
import type { WorkerConnection } from './reception.ts'
import { workersGone } from './server-ends.ts'
import type { Session } from './session.ts'

export interface AttendanceOptions<Peer> extends Omit<AbsencesOptions, 'present'> {
  readonly serve: (session: Session<Peer>) => Promise<void>
  /** A worker is no longer in training. */
  readonly onLeft: (worker: number) => void
  /** Without any worker the server gives up after this; never when absent. */
  readonly withoutWorkersMs: number | undefined
  readonly onDeserted: (error: FederationError) => void
}

export class Attendance<Peer extends AttestedPeer> {
  readonly #options: AttendanceOptions<Peer>
  readonly #open = new Map<WorkerConnection<Peer>, Promise<void>>()
  /** Those of them whose orderly end the server waits for: of admitted workers that did nothing wrong. */
  readonly #welcome = new Set<WorkerConnection<Peer>>()
  /** Workers in training, by index. */
  readonly #sessions = new Map<number, Session<Peer>>()
  /** Workers that know that training is over. */
  readonly #heard = new Set<number>()
  readonly #absences: Absences
  #over = false
  #cancelGivingUp = (): void => undefined

  constructor(options: AttendanceOptions<Peer>) {
    this.#options = options
    this.#absences = new Absences({ ...options, present: () => this.present })
    this.#giveUpLater()
  }

  /** Indices of the workers in training. */
  get present(): readonly number[] {
    return [...this.#sessions.keys()]
  }

  /** Workers that may still push: in training, or not yet there. */
  get expected(): ReadonlySet<number> {
    return this.#absences.expected
  }

  get heard(): ReadonlySet<number> {
    return this.#heard
  }

  sessionOf(worker: number): Session<Peer> | undefined {
    return this.#sessions.get(worker)
  }

  expel(worker: number, error: FederationError): void {
    this.#sessions.get(worker)?.expel(error)
  }

  expelAll(error: FederationError): void {
    for (const session of this.#sessions.values()) session.expel(error)
  }

  /**
   * One connection from its hello to its end; whatever happens on it ends it and nothing else. `admit` throws, or says whose
   * session begins.
   */
  attend(remote: RemoteWorker<Peer>, name: string, admit: () => Session<Peer>): Promise<void> {
    const { connection } = remote
    if (this.#over) {
      connection.destroy()
      return Promise.resolve()
    }
    const done = this.#attend(remote, name, admit).finally(() => {
      this.#open.delete(connection)
      this.#welcome.delete(connection)
    })
    this.#open.set(connection, done)
    return done
  }

  /** The session takes the place of the one that its worker had, if any. */
  enter(session: Session<Peer>): void {
    const { remote, worker } = session
    const replaced = this.#sessions.get(worker)
    this.#sessions.set(worker, session)
    this.#absences.came(worker)
    this.#welcome.add(remote.connection)
    this.#cancelGivingUp()
    replaced?.remote.connection.destroy()
  }

  /** Nobody is let in any more. Breaks the connections that the server does not wait for; resolves when the others have ended. */
  async endOrderly(): Promise<void> {
    this.#end()
    for (const connection of this.#open.keys()) if (!this.#welcome.has(connection)) connection.destroy()
    await Promise.all(this.#open.values())
  }

  async breakAll(): Promise<void> {
    this.#end()
    for (const connection of this.#open.keys()) connection.destroy()
    await Promise.all(this.#open.values())
  }

  async #attend(remote: RemoteWorker<Peer>, address: string, admit: () => Session<Peer>): Promise<void> {
    const { events, serve } = this.#options
    const { connection } = remote
    let session: Session<Peer> | undefined
    try {
      session = admit()
      await Promise.race([serve(session), session.expelled])
      this.#leave(session, { kind: 'peer-left', peer: session.name, reason: 'finished' })
    } catch (thrown) {
      const error = publicError(thrown)
      const [isLost, isDone] = [error.code === 'peer-lost', error.code === 'training-finished']
      const hasLeft = isDone || error.code === 'worker-left'
      if (session === undefined) events({ kind: 'peer-refused', address, error })
      else if (this.#sessions.get(session.worker) === session) {
        const reason = isLost || hasLeft ? 'lost' : 'refused'
        const left = { kind: 'peer-left', peer: session.name } as const
        this.#leave(session, isDone ? { ...left, reason: 'finished' } : { ...left, reason, error })
      } else events({ kind: 'peer-left', peer: session.name, reason: 'replaced' })
      if (error.code !== 'server-stopping') this.#welcome.delete(connection)
      if (isLost) connection.destroy()
      else if (hasLeft) await remote.close()
      else await remote.refuse(thrown)
    }
    const { bytesSent, bytesReceived } = connection
    events({ kind: 'traffic', peer: session?.name ?? address, bytesSent, bytesReceived })
  }

  #leave({ worker }: Session<Peer>, event: Extract<CloisterEvent, { kind: 'peer-left' }>): void {
    const { events, onLeft } = this.#options
    if (event.reason === 'finished') this.#heard.add(worker)
    this.#sessions.delete(worker)
    this.#absences.went(worker)
    events(event)
    onLeft(worker)
    if (this.#sessions.size === 0) this.#giveUpLater()
  }

  #giveUpLater(): void {
    const { clock, onDeserted, withoutWorkersMs } = this.#options
    this.#cancelGivingUp()
    if (withoutWorkersMs === undefined || this.#over) return
    this.#cancelGivingUp = clock.after(withoutWorkersMs, () => onDeserted(workersGone(withoutWorkersMs)))
  }

  #end(): void {
    this.#over = true
    this.#absences.end()
    this.#cancelGivingUp()
  }
}
