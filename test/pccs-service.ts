/** A PCCS of a simulated authority for each test, clients of it, and servers that stand in its way. */
import { createServer, get, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeAll, beforeEach, vi } from 'vitest'
import { PccsClient, type PccsOptions } from '../src/attestation/pccs.ts'
import { type PccsServer, startPccsServer } from '../src/attestation/pccs-server.ts'
import { fingerprintOf, type SimulatedAuthority } from '../src/attestation/platforms/simulated-authority.ts'
import { qcnlFor } from '../src/attestation/qcnl.ts'
import type { CloisterEvent } from '../src/observability/events.ts'
import { testAuthority, testEnclave, testNow } from './simulated.ts'

type ClientOptions = Partial<Omit<PccsOptions, 'config'>> & { readonly config?: Partial<PccsOptions['config']> }
type Forward = (changedHeaders?: Readonly<Record<string, string | undefined>>) => void
type Answer = (path: string, response: ServerResponse, forward: Forward) => void

type Intercepted = { readonly url: string; readonly requests: readonly string[] }

/** Filled and emptied around each test by hooks that `testPccs` registers. */
class TestPccs {
  authority!: SimulatedAuthority
  /** Up to date, under the platform CA. */
  quote!: Uint8Array
  server!: PccsServer
  /** The time for clients and service; a test may move it. */
  now = testNow
  readonly #cleanups: (() => unknown)[] = []

  async open(): Promise<void> {
    this.authority = await testAuthority()
    this.quote = await (await testEnclave(this.authority)).quote(Buffer.alloc(64, 7))
  }

  async start(): Promise<void> {
    this.now = testNow
    await this.authority.setVariants([])
    const { authority } = this
    const server = await startPccsServer({ authority, host: '127.0.0.1', port: 0, now: () => this.now })
    this.server = server
    this.#cleanups.push(() => server.close())
  }

  async stop(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0)) await cleanup()
  }

  client(url: string, options: ClientOptions = {}) {
    const events: CloisterEvent[] = []
    const { config, ...rest } = options
    const made = new PccsClient({
      rootFingerprint: fingerprintOf(this.authority.certificates.root),
      now: () => this.now,
      random: () => 0,
      report: (event) => events.push(event),
      limits: { timeoutMs: 2000, retries: 0, retryDelayMs: 1 },
      ...rest,
      config: qcnlFor(url, config ?? {}),
    })
    this.#cleanups.push(() => made.close())
    return Object.assign(made, {
      events,
      codes: () => events.map((event) => ('error' in event ? event.error?.code : '')),
    })
  }

  /** A server before or instead of the PCCS; `forward` passes the request on to the real one. */
  async intercept(answer: Answer = (_path, _response, forward) => forward()): Promise<Intercepted> {
    const requests: string[] = []
    const http = createServer((request, response) => {
      const path = request.url!
      requests.push(path)
      answer(path, response, (changedHeaders = {}) => {
        get(new URL(path, this.server.url), { agent: false }, (real) => {
          const all = Object.entries({ ...real.headers, ...changedHeaders })
          response.writeHead(real.statusCode!, Object.fromEntries(all.filter(([, value]) => value !== undefined)))
          real.pipe(response)
        }).on('error', () => response.destroy())
      })
    })
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
    this.#cleanups.push(() => {
      http.closeAllConnections()
      http.close()
    })
    return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/sgx/certification/v4/`, requests }
  }
}

export function testPccs(): TestPccs {
  const pccs = new TestPccs()
  beforeAll(() => pccs.open())
  beforeEach(() => pccs.start())
  afterEach(async () => {
    vi.useRealTimers()
    await pccs.stop()
  })
  return pccs
}

export const htmlPage = (response: ServerResponse) =>
  void response.writeHead(200, { 'Content-Type': 'text/html' }).end('<html>Sign in</html>')
