/** A job on "several machines": every server and worker a process with a run directory of its own, every connection through a proxy. */
import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { anyEngine, type Exit, eventually, type Reported, type Sandbox, type Started } from './program.ts'

export interface ClusterOptions {
  readonly sandbox: Sandbox
  /** Without admission: the cluster's platform decides it. */
  readonly job: { readonly servers: number; readonly workers: number }
  /** Click logs. */
  readonly data: string
  readonly saveEvery?: number
  /** Prefix of the run directories. */
  readonly name: string
  /** Workers that are there from the beginning; all when absent. */
  readonly present?: readonly number[]
}

/** DLRM on a few thousand synthetic clicks: small enough that a step takes milliseconds. */
export function smallRecommendation(
  more: { servers?: number; workers?: number; training?: object; rest?: object } = {},
) {
  const { servers = 1, workers = 4, training, rest } = more
  return {
    workload: 'recommendation',
    seed: 3,
    servers,
    workers,
    model: { name: 'dlrm', embeddingWidth: 8, bottom: [32], top: [32] },
    data: { name: 'criteo', categories: { scheme: 'vocabulary', minimumCount: 2, maximumValues: 10_000 } },
    training: {
      batchSize: 32,
      updates: 300,
      optimizer: { name: 'adagrad', initialAccumulator: 0 },
      learningRate: { schedule: 'constant', rate: 0.02 },
      ...training,
    },
    ...rest,
  }
}

export async function synthesizeClicks(sandbox: Sandbox, rows = 4000): Promise<string> {
  await sandbox.prepare('data', 'synthesize', 'criteo', 'logs', '--rows', String(rows))
  return sandbox.path('logs')
}

/** What attests the processes of a cluster: one simulated platform, and the policy that admits its machines. */
export async function simulatedPlatform(sandbox: Sandbox): Promise<unknown> {
  const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0'])
  await platform.says(/PCCS/)
  await sandbox.prepare('policy', 'init', 'policy.json', '--root', 'platform/root.pem')
  return sandbox.json('policy.json')
}

/** One party: a process that is started again, in its directory, whenever it ends otherwise than well. */
export class Party {
  readonly name: string
  /** Its run directory in the sandbox. */
  readonly directory: string
  /** How it ended each time but the last. */
  readonly failures: Exit[] = []
  /** Resolves when it ended well. */
  readonly done: Promise<void>
  process: Started
  readonly #start: (resume: boolean) => Started
  #heldDown: Promise<unknown> = Promise.resolve()
  #left = false

  constructor(name: string, directory: string, start: (resume: boolean) => Started) {
    this.name = name
    this.directory = directory
    this.#start = start
    this.process = start(false)
    this.done = this.#keepUp()
  }

  /** `whileDown`: done to it before it is started again. */
  kill(whileDown: () => unknown = () => undefined): void {
    this.#heldDown = this.process.exited.then(whileDown)
    this.process.kill('SIGKILL')
  }

  /** It goes in order, and does not come back. */
  leave(): Promise<void> {
    this.#left = true
    this.process.kill('SIGINT')
    return this.done
  }

  async #keepUp(): Promise<void> {
    for (;;) {
      const exit = await this.process.exited
      if (exit.status === 0 || this.#left) return
      this.failures.push(exit)
      await this.#heldDown
      // As whatever watches over it on its machine would.
      await sleep(100)
      this.process = this.#start(true)
    }
  }
}

export class Cluster {
  readonly servers: Party[] = []
  readonly workers: Party[] = []
  readonly proxies: CuttableProxy[] = []
  readonly #options: ClusterOptions
  readonly #files: string[]

  private constructor(options: ClusterOptions, files: string[]) {
    this.#options = options
    this.#files = files
  }

  static async start(options: ClusterOptions & { readonly admission: unknown }): Promise<Cluster> {
    const { admission, data, job, name, sandbox, saveEvery = 10 } = options
    const deployment = {
      platform: { kind: 'simulated', directory: 'platform' },
      engine: { choice: anyEngine, threads: 1 },
      data: { directory: data },
      saveEvery,
      tensorboard: false,
      reconnectForMs: 120_000,
    }
    const files = [
      ...['--job', sandbox.write(`${name}.json`, { ...job, admission })],
      ...['--deployment', sandbox.write(`${name}-deployment.json`, deployment)],
    ]
    const cluster = new Cluster(options, files)
    for (let index = 0; index < job.servers; index++) await cluster.#startServer(index)
    const { present = Array.from({ length: job.workers }, (_, index) => index) } = options
    for (const index of present) cluster.startWorker(index)
    return cluster
  }

  get parties(): Party[] {
    return [...this.servers, ...this.workers]
  }

  /** A worker that joins now, on a machine and in a directory of its own. */
  startWorker(index: number, machine = `worker${index}`): Party {
    const directory = `${this.#options.name}-${machine}`
    const role = ['worker', '--index', String(index), ...this.#files, '--out', directory, '--platform-machine', machine]
    const addresses = this.proxies.flatMap(({ address }) => ['--connect', address])
    const worker = new Party(`worker${index}`, directory, (resume) =>
      this.#options.sandbox.start([...role, ...addresses, ...(resume ? ['--resume'] : [])]),
    )
    this.workers.push(worker)
    return worker
  }

  async #startServer(index: number): Promise<void> {
    const { name, sandbox } = this.#options
    const directory = `${name}-server${index}`
    const role = ['server', '--index', String(index), ...this.#files, '--out', directory]
    const leader = index === 0 ? [] : ['--connect', this.proxies[0]!.address]
    let listen = '127.0.0.1:0'
    const server = new Party(index === 0 ? 'server' : `server${index}`, directory, (resume) =>
      sandbox.start([...role, ...leader, '--listen', listen, ...(resume ? ['--resume'] : [])]),
    )
    this.servers.push(server)
    const [, address] = (await server.process.says(/listening on (\S+)/)) as unknown as [string, string]
    listen = address
    this.proxies.push(await CuttableProxy.open(Number(address.split(':')[1])))
  }

  /** What the leader reported since the beginning, over all its lives. */
  get leaderEvents(): Reported[] {
    return this.#options.sandbox.events(this.servers[0]!.directory)
  }

  /** The newest version of the model that the leader reached. */
  get reached(): number {
    return Math.max(0, ...this.leaderEvents.flatMap((event) => (event.kind === 'update' ? [event.step] : [])))
  }

  async reaches(version: number): Promise<void> {
    await eventually(() => (this.reached >= version ? true : undefined))
  }

  /** The leader is asked to end the job; who is left goes too. */
  async stop(): Promise<void> {
    for (const party of this.parties) void party.leave()
    await this.finished()
  }

  async finished(): Promise<void> {
    await Promise.all(this.parties.map(({ done }) => done))
    for (const proxy of this.proxies) proxy.close()
  }
}

/** TCP to a port of this machine, which the test can cut. */
export class CuttableProxy {
  readonly address: string
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server, port: number) {
    this.#server = server
    const bound = server.address()
    this.address = `127.0.0.1:${typeof bound === 'object' && bound !== null ? bound.port : 0}`
    server.on('connection', (client) => {
      const target = tcpConnect({ port, host: '127.0.0.1' })
      for (const [one, other] of [
        [client, target],
        [target, client],
      ] as const) {
        this.#sockets.add(one)
        one.setNoDelay()
        one.pipe(other)
        one.on('error', () => other.destroy())
        one.on('close', () => {
          this.#sockets.delete(one)
          other.destroy()
        })
      }
    })
  }

  static async open(port: number): Promise<CuttableProxy> {
    const server = createServer()
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
    return new CuttableProxy(server, port)
  }

  /** Everything that is connected through it is cut off, with what is on its way. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  close(): void {
    this.cut()
    this.#server.close()
  }
}
