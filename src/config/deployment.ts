// SPDX-License-Identifier: Apache-2.0
/**
 * A deployment is what one host decides: addresses, paths, threads. Nothing in it can change what is computed or who is
 * accepted: the most a host can do here is to harm its own availability.
 */
import * as v from 'valibot'

const path = v.pipe(v.string(), v.nonEmpty())
const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535))

/** host:port; an IPv6 host stands in brackets. */
const address = v.pipe(v.string(), v.regex(/^(\[[0-9a-fA-F:.]+\]|[^\s:]+):\d{1,5}$/, 'expected host:port'))

export const deploymentSchema = v.strictObject({
  $schema: v.optional(v.string()),
  /** Which process of the job the enclave image runs here; on the command line the command says it. */
  process: v.optional(
    v.strictObject({
      role: v.picklist(['server', 'worker']),
      /** Which server or which worker of the job, from 0. */
      index: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535)), 0),
    }),
  ),
  server: v.optional(
    v.strictObject({
      /** Where the server listens. Port 0 takes a free one. */
      listen: v.optional(v.strictObject({ host: v.optional(v.string(), '127.0.0.1'), port: v.optional(port, 0) }), {
        host: '127.0.0.1',
        port: 0,
      }),
      /** Where grpc.health.v1 answers without TLS, for probes of the host; nowhere when absent. */
      health: v.optional(v.strictObject({ host: v.optional(v.string(), '127.0.0.1'), port })),
      /** Where workers, and servers that follow, find the job's servers, in their order: server 0 leads. */
      addresses: v.optional(v.pipe(v.array(address), v.minLength(1))),
    }),
    { listen: { host: '127.0.0.1', port: 0 } },
  ),
  /** What attests this process: Gramine on SGX (the default), or a simulated platform, which protects nothing. */
  platform: v.optional(
    v.variant('kind', [
      v.strictObject({ kind: v.literal('gramine') }),
      v.strictObject({
        kind: v.literal('simulated'),
        directory: path,
        /** Which of its simulated machines this process runs on: each has a PPID and a PCK certificate of its own. */
        machine: v.optional(v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,64}$/, 'expected a-z, 0-9 and -')), 'default'),
      }),
    ]),
  ),
  /** Where collateral for peers' quotes comes from; Intel's quoting library's configuration when nothing is said. */
  collateral: v.optional(
    v.strictObject({
      pccs: v.optional(v.pipe(v.string(), v.url())),
      qcnl: v.optional(path),
      /** Files with bundles instead of a service. */
      bundles: v.optional(v.pipe(v.array(path), v.minLength(1))),
      /** What was fetched survives restarts in it. */
      cacheDirectory: v.optional(path),
      /** Connected peers are judged by collateral of this age at most, as long as the service answers. */
      refreshMinutes: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(7 * 24 * 60)), 60),
    }),
    { refreshMinutes: 60 },
  ),
  data: v.optional(v.strictObject({ directory: v.optional(path) }), {}),
  engine: v.optional(
    v.strictObject({
      choice: v.optional(v.picklist(['auto', 'tensorflow', 'javascript']), 'auto'),
      directory: v.optional(path),
      /** Threads inside one operation; 0: all cores shared among the processes of this host. */
      threads: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(127)), 0),
    }),
    { choice: 'auto', threads: 0 },
  ),
  /** Run directory; `runs/<time>` when absent. */
  out: v.optional(path),
  /** Where Prometheus finds this process's metrics, over plain HTTP; nowhere when absent. */
  metrics: v.optional(v.strictObject({ host: v.optional(v.string(), '127.0.0.1'), port })),
  /** Whether TensorBoard's event files are written into the run directory. */
  tensorboard: v.optional(v.boolean(), true),
  /** Where owners hand keys to this process (`cloister provision`), when the job lists owners. */
  provisioning: v.optional(v.strictObject({ host: v.optional(v.string(), '127.0.0.1'), port: v.optional(port, 0) }), {
    host: '127.0.0.1',
    port: 0,
  }),
  /** Servers save their state when so long has passed since they last began to, and at the end; 0: not by time. Server 0 says when. */
  saveEveryMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 60_000),
  /** And every so many updates; 0: not by updates. */
  saveEvery: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 0),
  /** So many checkpoints stay on disk. */
  keepCheckpoints: v.optional(v.pipe(v.number(), v.integer(), v.minValue(2), v.maxValue(1000)), 3),
  /** How long a worker waits for a lost server before it gives up. */
  reconnectForMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 120_000),
})

export type Deployment = v.InferOutput<typeof deploymentSchema>
