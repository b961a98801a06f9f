// SPDX-License-Identifier: Apache-2.0
/** A worker in training, from its admission to its end: what it has in hand, and what it waits for. */
import type { AttestedPeer } from '../attestation/policy.ts'
import type { Lease } from './data-plan.ts'
import { Deferred } from './deferred.ts'
import type { Scores } from './evaluation.ts'
import { type PushOutcome, RemoteWorker, type WorkerRequest } from './protocol/remote-worker.ts'
import type { Hello } from './protocol/worker-claims.ts'
import type { Arrival } from './reception.ts'
import type { ServerOptions } from './server-options.ts'
import type { TensorPool } from './tensor-set.ts'

export class Session<Peer> {
  readonly remote: RemoteWorker<Peer>
  readonly worker: number
  readonly name: string
  /** Tells a worker that comes back from a second one with its index. */
  readonly key: Uint8Array
  /** Batches in its hands, in the order in which it pushes them. */
  readonly leases: Lease[] = []
  readonly #unsettled = new Set<Promise<unknown>>()
  readonly #expelled = new Deferred<never>()
  readonly #atHome = new Deferred<void>()
  #sentHome = false

  /** `withdrawn`: aborted, with the reason, when the worker is no longer acceptable. */
  constructor(remote: RemoteWorker<Peer>, { worker, session }: Hello, withdrawn: AbortSignal | undefined) {
    this.remote = remote
    this.worker = worker
    this.name = `worker${worker}`
    this.key = session
    const withdraw = (): void => this.expel(withdrawn?.reason)
    if (withdrawn?.aborted) withdraw()
    withdrawn?.addEventListener('abort', withdraw)
  }

  /** The server no longer wants this worker. */
  expel(error: unknown): void {
    this.#expelled.reject(error)
  }

  /** Rejects with the reason when the worker is expelled. */
  get expelled(): Promise<never> {
    return this.#expelled.promise
  }

  /** Resolves when its pushes so far are applied or dropped. */
  async settled(): Promise<void> {
    await Promise.all(this.#unsettled)
  }

  /** Tells the worker what becomes of its push. */
  promise(pull: number, outcome: Promise<PushOutcome>): void {
    this.#unsettled.add(outcome)
    outcome
      .then((became) => {
        this.#unsettled.delete(outcome)
        return this.remote.answer(pull, became)
      })
      .catch((error: unknown) => this.expel(error))
  }

  /** Gives each request to `take`, until the worker was told that training is over: then its going away is no loss. */
  async requests(take: (request: WorkerRequest) => void): Promise<void> {
    const takeAll = async (): Promise<void> => {
      for (;;) take(await this.remote.request())
    }
    const taking = takeAll().catch((error: unknown) => (this.#sentHome ? this.#atHome.promise : Promise.reject(error)))
    await Promise.race([taking, this.#atHome.promise])
  }

  async sendHome(version: number, scores: Scores): Promise<void> {
    this.#sentHome = true
    await this.remote.finish(version, scores)
    this.#atHome.resolve()
  }
}

/** Who has arrived, as this server speaks with workers. */
export function remoteWorkerOf<Peer extends AttestedPeer>(
  { job, layout, server }: ServerOptions<Peer>,
  { connection, reader }: Arrival<Peer>,
  pushes: TensorPool,
): RemoteWorker<Peer> {
  return new RemoteWorker<Peer>(connection, reader, {
    manifest: pushes.manifest,
    tables: layout.tables,
    transfer: layout.transfer,
    place: { server, servers: layout.placement.servers },
    batchSize: job.batchSize,
    memory: () => pushes.take(),
  })
}
