// SPDX-License-Identifier: Apache-2.0
/** What a parameter server is given, and what it gives back. */

import type { AttestedPeer } from '../attestation/policy.ts'
import type { Engine } from '../engine/engine.ts'
import type { EventSink, PeerEvidence } from '../observability/events.ts'
import type { Listener } from '../transport/connection.ts'
import type { Clock } from './clock.ts'
import type { Lease } from './data-plan.ts'
import type { Scored } from './evaluation.ts'
import type { FleetLayout } from './fleet.ts'
import type { Follower } from './follower.ts'
import type { Leader } from './leader.ts'
import type { ModelState } from './model-state.ts'
import type { PreparationServer } from './preparation.ts'
import type { ServerMessage, WorkerMessage } from './protocol/messages.ts'
import type { PushOutcome } from './protocol/remote-worker.ts'
import type { RowGradients } from './row-updates.ts'
import type { AuditHead, Checkpoints, RestoredModel } from './saved-state.ts'
import type { Schedule } from './schedules.ts'
import type { Contribution, Strategy } from './strategies/strategy.ts'
import type { TensorSet, Values } from './tensor-set.ts'

export interface ServerOptions<Peer extends AttestedPeer = AttestedPeer> {
  readonly listener: Listener<Peer, ServerMessage, WorkerMessage>
  readonly describe: (peer: Peer) => PeerDescription
  readonly job: ServerJob
  readonly engine: Engine
  /** Of the whole model. */
  readonly layout: FleetLayout
  /** Which of the job's servers this is; `group` leads exactly when it is 0. */
  readonly server: number
  readonly group: Leader | Follower
  /** This server's part of the model: as saved, else as it begins. */
  readonly createModel: (saved: RestoredModel | undefined) => ModelState
  /** A fresh one for each epoch. */
  readonly createStrategy: () => Strategy<PendingUpdate>
  readonly schedule: Schedule
  /** What data must agree on before training; the leader's matter. */
  readonly preparation?: PreparationServer
  /** Where state is kept so that a server that dies goes on; it begins with the newest that all servers have. */
  readonly checkpoints?: Checkpoints
  /** Its head goes into every checkpoint, and must be in the log that a resumed server finds. */
  readonly audit?: { readonly head: AuditHead; requireHead(head: AuditHead): void }
  /** Called with the final model. */
  readonly release: (model: ModelState) => Promise<void>
  /** Called with what came of it all, before anybody is waited for that comes late. */
  readonly conclude?: (result: ServerResult) => void
  readonly limits: ServerLimits
  readonly clock: Clock
  readonly events: EventSink
  /** Ends training early, with what was learnt saved. */
  readonly signal: AbortSignal
}

/** What is known about an authenticated peer. */
export interface PeerDescription {
  /** Of the connection; once admitted a worker is called by its index. */
  readonly name: string
  readonly evidence: PeerEvidence
  /** What its attested code stated to be. */
  readonly role: 'worker' | 'follower' | 'server'
  /** The only index that it may take; any when absent. */
  readonly workerIndex?: number
  /** Aborted, with the error as its reason, when the peer is no longer acceptable. */
  readonly withdrawn?: AbortSignal
}

export interface ServerJob {
  readonly digest: Uint8Array
  readonly workers: number
  /** Most examples of one push: bounds its weight in a mean. */
  readonly batchSize: number
  readonly totalUpdates: number
  /** Scores every so many updates, besides the end; only at the end when 0. */
  readonly evaluateEvery: number
  /** Saves every so many updates, besides the end; not by updates when 0. */
  readonly saveEvery: number
  /** And when so long has passed since a save began; not by time when 0. */
  readonly saveEveryMs: number
  /** Servers go from version to version together, and a worker's parameters have seen its own pushes. */
  readonly synchronous: boolean
  /** Nobody trains before so many workers are there. */
  readonly minimumToStart: number
  /** The data shard of a worker that is away for so long goes to others; never when absent. */
  readonly moveShardsAfterMs?: number
}

export interface ServerLimits {
  /** From a connection to its Hello. */
  readonly helloMs: number
  /** From the request to the last worker's scores. */
  readonly evaluationMs: number
  /** Without any worker the server gives up after this. */
  readonly withoutWorkersMs: number
  /** After the end of training, for workers that have not heard of it; none are waited for when absent. */
  readonly lateWorkersMs?: number
}

export interface ServerResult {
  readonly reason: 'complete' | 'stopped'
  readonly version: number
  /** Examples in applied updates. */
  readonly examples: number
  /** From the first assignment to the last update. */
  readonly seconds: number
  /** Over the held-out examples of all workers; without examples when stopped or when no worker was left to score. */
  readonly heldOut: Scored
  /** Every worker that was ever in training, by index. */
  readonly workers: readonly WorkerSummary[]
}

export interface WorkerSummary {
  readonly worker: number
  readonly name: string
  readonly evidence: PeerEvidence
  /** In its shard. */
  readonly examples: number
  readonly dataSource: string
}

/** A push in the strategy's hands. */
export interface PendingUpdate extends Contribution {
  readonly examples: number
  readonly loss: number
  readonly values: TensorSet<Values>
  readonly rows: ReadonlyMap<string, RowGradients>
  /** The batch that it was computed from; known to the leader. */
  readonly lease: Lease | undefined
  readonly answer: (outcome: PushOutcome) => void
}
