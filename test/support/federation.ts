/**
 * A server and its workers in one process over the in-memory transport, training the softmax regression on the JavaScript
 * engine; the whole protocol runs, and a test may put its hands anywhere.
 */
import { expect } from 'vitest'
import type { AttestedPeer } from '../../src/attestation/policy.ts'
import type { Engine } from '../../src/engine/engine.ts'
import { mean } from '../../src/federation/aggregators/mean.ts'
import { systemClock } from '../../src/federation/clock.ts'
import type { FleetLayout } from '../../src/federation/fleet.ts'
import { Leader } from '../../src/federation/leader.ts'
import type { Manifest } from '../../src/federation/manifest.ts'
import { ModelState, type ModelStateOptions, type Snapshot } from '../../src/federation/model-state.ts'
import { momentum } from '../../src/federation/optimizers/momentum.ts'
import { place } from '../../src/federation/placement.ts'
import { Federation } from '../../src/federation/protocol/gen/cloister/v1/federation_pb.ts'
import type { ServerMessage, WorkerMessage } from '../../src/federation/protocol/messages.ts'
import type { Hello } from '../../src/federation/protocol/worker-claims.ts'
import type { TableSpec } from '../../src/federation/row-initializer.ts'
import { runServer } from '../../src/federation/run-server.ts'
import { constant } from '../../src/federation/schedules.ts'
import type {
  PeerDescription,
  PendingUpdate,
  ServerJob,
  ServerLimits,
  ServerOptions,
} from '../../src/federation/server-options.ts'
import type { Strategy } from '../../src/federation/strategies/strategy.ts'
import { type SynchronousOptions, synchronous } from '../../src/federation/strategies/synchronous.ts'
import { Training, type TrainingOptions } from '../../src/federation/training.ts'
import { runWorker, type WorkerOptions } from '../../src/federation/worker.ts'
import type { Transfer } from '../../src/models/bfloat16.ts'
import type { CloisterEvent, EventSink, PeerEvidence } from '../../src/observability/events.ts'
import type { Connection } from '../../src/transport/connection.ts'
import { listenInMemory, type MemoryListener } from '../../src/transport/memory.ts'
import {
  linearBatches,
  linearEvaluation,
  linearHeldOut,
  linearManifest,
  linearStep,
  linearValues,
} from './linear-training.ts'
import { MemoryCheckpoints } from './memory-checkpoints.ts'

export const batchSize = 6

/** Whom the in-memory transport has authenticated: just a name, which may bind a worker index, and what it stated to be. */
export interface NamedPeer {
  readonly name: string
  readonly role?: PeerDescription['role']
  readonly workerIndex?: number
}
export type Peer = AttestedPeer & NamedPeer

/** The visible cast: nobody proved anything to make this peer. */
const unattested = (peer: NamedPeer): Peer => peer as Peer

const evidence: PeerEvidence = { platform: 'memory', detail: 'one process' }
export const describe = ({ name, role = 'worker', workerIndex }: Peer): PeerDescription =>
  workerIndex === undefined ? { name, evidence, role } : { name, evidence, role, workerIndex }

export const testJob: ServerJob = {
  digest: new Uint8Array(32).fill(1),
  workers: 2,
  batchSize,
  totalUpdates: 6,
  evaluateEvery: 0,
  saveEvery: 0,
  saveEveryMs: 0,
  synchronous: true,
  minimumToStart: 1,
}

export const linearLayout: FleetLayout = layoutOf(linearManifest, [], 1)

export function layoutOf(
  manifest: Manifest,
  tables: readonly TableSpec[],
  servers: number,
  transfer: Transfer = 'float32',
): FleetLayout {
  return { manifest, tables, placement: place(manifest, tables, servers), transfer }
}

export const testLimits: ServerLimits = { helloMs: 10_000, evaluationMs: 10_000, withoutWorkersMs: 10_000 }

export function linearModel(engine: Engine, options: Partial<ModelStateOptions> = {}): ModelState {
  return new ModelState({
    engine,
    manifest: linearManifest,
    optimizer: momentum({ momentum: 0.9 }),
    aggregator: mean,
    weightDecay: 0.01,
    values: linearValues(),
    ...options,
  })
}

export function allOf(take: number, options: Partial<SynchronousOptions> = {}): Strategy<PendingUpdate> {
  return synchronous({ take, minimumWorkers: 1, ...options })
}

export interface SavedModel {
  readonly version: number
  readonly values: Readonly<Record<string, readonly number[]>>
}

export function savedModel({ version, parameters }: Snapshot): SavedModel {
  const values = [...parameters.named()].map(([name, { data }]) => [name, [...data]] as const)
  return { version, values: Object.fromEntries(values) }
}

export type Wire = MemoryListener<Peer, typeof Federation.method.join.input, typeof Federation.method.join.output>

export interface RunningServer {
  readonly checkpoints: MemoryCheckpoints
  readonly wire: Wire
  readonly events: CloisterEvent[]
  readonly saved: SavedModel[]
  readonly stop: AbortController
  readonly result: ReturnType<typeof runServer>
}

export interface ServerSettings extends Partial<Omit<ServerOptions<Peer>, 'job' | 'limits' | 'checkpoints'>> {
  readonly wire?: Wire
  readonly checkpoints?: MemoryCheckpoints
  readonly job?: Partial<ServerJob>
  readonly limits?: Partial<ServerLimits>
}

export function memoryWire(name: string): Wire {
  return listenInMemory<Peer, typeof Federation.method.join.input, typeof Federation.method.join.output>({
    identity: unattested({ name, role: 'server' }),
    method: Federation.method.join,
    authenticate: async (claimed) => claimed,
  })
}

export function startServer(engine: Engine, settings: ServerSettings = {}): RunningServer {
  const [events, saved, stop]: [CloisterEvent[], SavedModel[], AbortController] = [[], [], new AbortController()]
  const { job, limits, events: alsoTo, wire = memoryWire('server'), ...rest } = settings
  const { checkpoints = new MemoryCheckpoints() } = settings
  const wholeJob = { ...testJob, ...job }
  const layout = settings.layout ?? linearLayout
  const result = runServer<Peer>({
    listener: wire,
    describe,
    engine,
    layout,
    server: 0,
    group: new Leader({ servers: 1, jobDigest: wholeJob.digest, placementDigest: layout.placement.digest }),
    createModel: (restored) => linearModel(engine, restored),
    createStrategy: () => allOf(2),
    schedule: constant(0.1),
    checkpoints,
    release: async (model) => {
      const snapshot = model.snapshot()
      saved.push(savedModel(snapshot))
      snapshot.release()
    },
    clock: systemClock,
    signal: stop.signal,
    ...rest,
    events: both(events, alsoTo),
    job: wholeJob,
    limits: { ...testLimits, ...limits },
  })
  result.catch(() => undefined)
  return { wire, events, saved, stop, result, checkpoints }
}

/** One worker is enough for an update, so that a faulty one can't hold the others up. */
export function startForOne(engine: Engine, settings: ServerSettings = {}): RunningServer {
  return startServer(engine, { createStrategy: () => allOf(1), ...settings, job: { totalUpdates: 3, ...settings.job } })
}

/** The server has survived whatever came before. */
export async function honestWorkerFinishes(engine: Engine, server: RunningServer): Promise<void> {
  const worker = startWorker(engine, () => server.wire, 0, { training: linearTraining(engine) })
  expect(await worker.result).toMatchObject({ reason: 'complete' })
  expect(await server.result).toMatchObject({ reason: 'complete', version: 3 })
}

export type WorkerConnection = Connection<Peer, WorkerMessage, ServerMessage>

export function connectTo(wire: Wire, peer: NamedPeer): Promise<WorkerConnection> {
  return wire.connect({ identity: unattested(peer), authenticate: async (claimed) => claimed })
}

/** The same connection, with every message noted; `change` may alter what the worker sends. */
export function overheard(
  connection: WorkerConnection,
  note: (line: string) => void,
  change: (message: WorkerMessage) => WorkerMessage = (message) => message,
): WorkerConnection {
  return {
    peer: connection.peer,
    get bytesSent() {
      return connection.bytesSent
    },
    get bytesReceived() {
      return connection.bytesReceived
    },
    async send(message) {
      note(`worker: ${message.message.case}`)
      await connection.send(change(message))
    },
    incoming: (async function* () {
      for await (const message of connection.incoming) {
        note(`server: ${message.message.case}`)
        yield message
      }
    })(),
    close: (reason) => connection.close(reason),
    destroy: (cause) => connection.destroy(cause),
  }
}

export function helloOf(worker: number, changes: Partial<Hello> = {}): Hello {
  const session = new Uint8Array(16).fill(100 + worker)
  const planDigest = new Uint8Array(32).fill(2)
  const dataSource = 'invented'
  const place = { server: 0, placementDigest: linearLayout.placement.digest }
  return { jobDigest: testJob.digest, planDigest, worker, examples: 60, session, dataSource, ...place, ...changes }
}

export interface RunningWorker {
  readonly events: CloisterEvent[]
  readonly stop: AbortController
  readonly result: ReturnType<typeof runWorker>
}

interface WorkerSettings extends Partial<Omit<WorkerOptions<Peer>, 'hello'>> {
  readonly hello?: Partial<Hello>
  readonly training?: Training
}

/** `wireOf` may answer differently while it runs: a worker connects to what is there. */
export function startWorker(
  engine: Engine,
  wireOf: (server: number) => Wire,
  worker: number,
  settings: WorkerSettings = {},
): RunningWorker {
  const [events, stop]: [CloisterEvent[], AbortController] = [[], new AbortController()]
  const { hello, events: alsoTo, ...rest } = settings
  const result = runWorker<Peer>({
    connect: (server) => connectTo(wireOf(server), { name: `worker ${worker}` }),
    describe,
    mayRetry: () => true,
    engine,
    layout: linearLayout,
    training: linearTraining(engine, worker, 2),
    synchronous: true,
    prefetch: false,
    reconnectForMs: 5_000,
    clock: systemClock,
    signal: stop.signal,
    ...rest,
    events: both(events, alsoTo),
    hello: helloOf(worker, hello),
  })
  result.catch(() => undefined)
  return { events, stop, result }
}

export function linearTraining(
  engine: Engine,
  party = 0,
  parties = 1,
  changes: Partial<TrainingOptions> = {},
): Training {
  return new Training({
    manifest: linearManifest,
    tables: [],
    step: linearStep(engine, batchSize),
    evaluation: linearEvaluation(engine, batchSize),
    batch: linearBatches(batchSize, parties),
    heldOut: () => linearHeldOut(batchSize, party, parties),
    seed: () => 7,
    ...changes,
  })
}

function both(events: CloisterEvent[], other: EventSink | undefined): EventSink {
  return (event) => {
    events.push(event)
    other?.(event)
  }
}

export function kinds<Kind extends CloisterEvent['kind']>(
  events: readonly CloisterEvent[],
  kind: Kind,
): Extract<CloisterEvent, { kind: Kind }>[] {
  return events.filter((event): event is Extract<CloisterEvent, { kind: Kind }> => event.kind === kind)
}
