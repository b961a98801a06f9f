// SPDX-License-Identifier: Apache-2.0
/**
 * `GET /metrics` for Prometheus over plain HTTP: it tells what events tell, which the host reads in the log as well, and takes nothing
 * from who asks but the path.
 */
import { createServer } from 'node:http'
import type { CloisterEvent } from '../observability/events.ts'
import { createMetrics } from '../observability/metrics.ts'
import { bind } from '../transport/bind.ts'

export interface MetricsServerOptions {
  readonly host: string
  readonly port: number
  /** Examples of one contribution. */
  readonly now: () => Date
}

export interface MetricsServer {
  /** host:port as bound. */
  readonly address: string
  observe(source: string, event: CloisterEvent): void
  close(): Promise<void>
}

export async function serveMetrics({ host, port, now }: MetricsServerOptions): Promise<MetricsServer> {
  const metrics = createMetrics({ now })
  const limits = { maxHeaderSize: 8 * 1024, headersTimeout: 10_000, requestTimeout: 10_000 }
  const server = createServer(limits, (request, response) => {
    const end = (status: number, headers: Record<string, string> = {}, body = ''): void => {
      response.writeHead(status, headers).end(body)
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') return end(405, { allow: 'GET, HEAD' })
    if (request.url?.split('?')[0] !== '/metrics') return end(404)
    metrics.text().then(
      (text) => end(200, { 'content-type': metrics.contentType }, text),
      () => end(500),
    )
  })
  server.maxConnections = 16
  const address = await bind(server, host, port)
  return {
    address,
    observe: metrics.observe,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
