/** Several servers of one job, each with its wire and its checkpoints, and workers that train the model with a table on them. */
import type { Engine } from '../../src/engine/engine.ts'
import { mean } from '../../src/federation/aggregators/mean.ts'
import { pause, systemClock } from '../../src/federation/clock.ts'
import { Follower } from '../../src/federation/follower.ts'
import { Leader } from '../../src/federation/leader.ts'
import { ModelState, type ModelStateOptions } from '../../src/federation/model-state.ts'
import { adagrad } from '../../src/federation/optimizers/adagrad.ts'
import { manifestOfServer, serverOfRow } from '../../src/federation/placement.ts'
import { following } from '../../src/federation/strategies/following.ts'
import type { Transfer } from '../../src/models/bfloat16.ts'
import {
  allOf,
  batchSize,
  connectTo,
  layoutOf,
  memoryWire,
  type RunningServer,
  type ServerSettings,
  startServer,
  startWorker,
  testJob,
  type Wire,
  type WorkerConnection,
} from './federation.ts'
import { MemoryCheckpoints } from './memory-checkpoints.ts'
import { table, tableManifest, tableTraining, tableValues } from './table-training.ts'

export interface ServerGroup {
  readonly workers: number
  readonly layout: ReturnType<typeof layoutOf>
  readonly servers: readonly RunningServer[]
  readonly wires: readonly Wire[]
  /** Every connection that anybody opened, to cut them. */
  readonly connections: WorkerConnection[]
  /** By server: its part of the model as it ended. */
  readonly released: Map<number, ReleasedPart>
}

interface ReleasedPart {
  readonly tensors: readonly (readonly [string, readonly number[]])[]
  /** By id; first values where it holds no such row. */
  readonly rows: ReadonlyMap<number, readonly number[]>
}

export interface GroupSettings extends ServerSettings {
  readonly servers: number
  readonly workers: number
  readonly totalUpdates: number
  /** Of the table, on each server. */
  readonly maximumRows?: number
  readonly stores?: readonly MemoryCheckpoints[]
  readonly acceptRollback?: boolean
  readonly transfer?: Transfer
  /** Starts these servers, and leaves the others to the test; all when absent. */
  readonly only?: readonly number[]
  /** Told of each connection between servers, as its follower holds it. */
  readonly onLink?: (link: WorkerConnection) => void
}

export function startServers(engine: Engine, settings: GroupSettings): ServerGroup {
  const {
    servers,
    workers,
    totalUpdates,
    stores,
    maximumRows = 1000,
    only,
    onLink,
    acceptRollback,
    transfer,
    job,
    ...rest
  } = settings
  const layout = layoutOf(tableManifest, [table], servers, transfer)
  const wires = Array.from({ length: servers }, (_, server) => memoryWire(`server ${server}`))
  const connections: WorkerConnection[] = []
  const released = new Map<number, ReleasedPart>()
  const options = { servers, jobDigest: testJob.digest, placementDigest: layout.placement.digest }
  const started = [...wires.entries()].filter(([server]) => only === undefined || only.includes(server))
  const running = started.map(([server, wire]) => {
    const group =
      server === 0
        ? new Leader({ ...options, ...(acceptRollback !== undefined && { acceptRollback }) })
        : new Follower({
            ...options,
            server,
            connect: async (signal) => {
              for (;;) {
                try {
                  const link = await connectTo(wires[0]!, { name: `server ${server}`, role: 'follower' })
                  connections.push(link)
                  onLink?.(link)
                  return link
                } catch (error) {
                  if (signal.aborted) throw error
                  await pause(systemClock, 5, signal)
                }
              }
            },
          })
    return startServer(engine, {
      wire,
      layout,
      server,
      group,
      checkpoints: stores?.[server] ?? new MemoryCheckpoints(),
      createModel: (restored) => tableModel(engine, layout, server, { maximumRows, ...restored }),
      createStrategy: () => (server === 0 ? allOf(workers, { minimumWorkers: workers }) : following()),
      ...rest,
      release: async (model) => {
        released.set(server, partOf(model))
      },
      job: { workers, totalUpdates, ...job },
    })
  })
  return { workers, layout, servers: running, wires, connections, released }
}

/** One server's part. */
export function tableModel(
  engine: Engine,
  { placement, transfer }: ServerGroup['layout'],
  server: number,
  { maximumRows = 1000, ...restored }: Partial<ModelStateOptions> & { maximumRows?: number } = {},
): ModelState {
  const manifest = manifestOfServer(tableManifest, placement, server)
  return new ModelState({
    engine,
    manifest,
    optimizer: adagrad({ initialAccumulator: 0.1, epsilon: 1e-7 }),
    aggregator: mean,
    weightDecay: 0.01,
    transfer,
    values: new Map(manifest.map(({ name }) => [name, tableValues().get(name)!])),
    ...restored,
    tables: { specs: [table], seed: 11, maximumRows },
  })
}

export function partOf(model: ModelState): ReleasedPart {
  const snapshot = model.snapshot()
  const tensors = [...snapshot.parameters.named()].map(([name, { data }]) => [name, [...data]] as const)
  snapshot.release()
  const rows = new Map<number, readonly number[]>()
  for (let id = 0; id < table.rows; id++) {
    const values = new Float32Array(table.width)
    model.tables.get(table.name)!.gather(Uint32Array.of(id), values, { create: false })
    rows.set(id, [...values])
  }
  return { tensors, rows }
}

async function track(into: WorkerConnection[], connecting: Promise<WorkerConnection>): Promise<WorkerConnection> {
  const connection = await connecting
  into.push(connection)
  return connection
}

export function startTableWorker(
  engine: Engine,
  { workers, layout, wires, connections }: ServerGroup,
  worker: number,
  settings: Parameters<typeof startWorker>[3] = {},
) {
  return startWorker(engine, (server) => wires[server]!, worker, {
    layout,
    connect: (server) => track(connections, connectTo(wires[server]!, { name: `worker ${worker}` })),
    training: tableTraining(engine, worker, workers, batchSize, layout.transfer),
    ...settings,
  })
}

/** The whole model as it ended, put together from all servers. */
export function tableState({ released, layout }: ServerGroup): {
  readonly tensors: ReadonlyMap<string, readonly number[]>
  readonly rows: ReadonlyMap<number, readonly number[]>
} {
  const { servers } = layout.placement
  const parts = Array.from({ length: servers }, (_, server) => released.get(server)!)
  const tensors = new Map(parts.flatMap((part) => part.tensors).sort(([a], [b]) => (a < b ? -1 : 1)))
  const ids = Array.from({ length: table.rows }, (_, id) => id)
  return { tensors, rows: new Map(ids.map((id) => [id, parts[serverOfRow(id, servers)]!.rows.get(id)!])) }
}
