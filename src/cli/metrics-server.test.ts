// SPDX-License-Identifier: Apache-2.0
/** Metrics over HTTP: what Prometheus' own linter makes of them, and what is documented. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { promtool, requires } from '../../test/requirements.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { type MetricsServer, serveMetrics } from './metrics-server.ts'

const root = resolve(import.meta.dirname, '../..')
const error = { code: 'some-code', message: 'm', hint: 'h' }
const evidence = { platform: 'simulated', detail: 'd' }
const events: readonly CloisterEvent[] = [
  { kind: 'process-started', role: 'server', engine: 'TensorFlow "2"', job: 'ab', platform: 'simulated' },
  { kind: 'peer-joined', peer: 'worker0', evidence },
  { kind: 'peer-joined', peer: 'worker1', evidence },
  { kind: 'peer-left', peer: 'worker1', reason: 'replaced' },
  { kind: 'peer-left', peer: 'worker1', reason: 'lost', error },
  { kind: 'peer-refused', address: '1.2.3.4:5', error },
  { kind: 'update', step: 7, examples: 41, loss: 2.5, learningRate: 0.1, staleness: 2, contributions: 3, applyMs: 20 },
  {
    kind: 'update',
    step: 8,
    examples: 16,
    loss: 2.25,
    learningRate: 0.05,
    staleness: 0,
    contributions: 1,
    applyMs: 20,
  },
  { kind: 'update-refused', worker: 1, step: 3, error },
  { kind: 'traffic', peer: 'worker1', bytesSent: 100, bytesReceived: 30 },
  { kind: 'traffic', peer: 'worker1', bytesSent: 10, bytesReceived: 3 },
  { kind: 'evaluation', step: 8, examples: 50, scores: { auc: 0.75 } },
  { kind: 'saved', what: 'model', path: '/x', step: 8 },
  { kind: 'checkpointed', step: 8, bytes: 4096, ms: 500 },
  { kind: 'resumed', step: 5 },
  { kind: 'reassigned', shard: 1, from: 1, to: 0 },
  { kind: 'warning', error },
]
const step: CloisterEvent = {
  ...{ kind: 'step', worker: 0, step: 9, examples: 15, loss: 2, iterationMs: 250, computeMs: 200, waitMs: 50 },
}

const open: MetricsServer[] = []
afterEach(async () => {
  for (const server of open.splice(0)) await server.close()
})

async function serve(): Promise<MetricsServer> {
  const server = await serveMetrics({ host: '127.0.0.1', port: 0, now: () => new Date(5000) })
  open.push(server)
  return server
}

async function observed(): Promise<{ server: MetricsServer; text: string }> {
  const server = await serve()
  for (const event of events) server.observe('server', event)
  server.observe('worker0', step)
  return { server, text: await (await fetch(`http://${server.address}/metrics`)).text() }
}

test('each event is counted where it belongs', async () => {
  const { text } = await observed()
  const lines = text.split('\n')
  for (const line of [
    'cloister_process_info{process="server",role="server",engine="TensorFlow \\"2\\"",job="ab",platform="simulated"} 1',
    'cloister_finished{process="server"} 0',
    'cloister_updates_total{process="server"} 2',
    'cloister_contributions_total{process="server"} 4',
    'cloister_examples_total{process="server"} 57',
    'cloister_examples_total{process="worker0"} 15',
    'cloister_training_loss{process="server"} 2.25',
    'cloister_learning_rate{process="server"} 0.05',
    'cloister_update_apply_seconds_sum{process="server"} 0.04',
    'cloister_update_staleness_bucket{le="1",process="server"} 1',
    'cloister_update_staleness_sum{process="server"} 2',
    'cloister_updates_refused_total{process="server",code="some-code"} 1',
    'cloister_peers_connected{process="server"} 1',
    'cloister_peers_joined_total{process="server"} 2',
    'cloister_peers_left_total{process="server",reason="lost"} 1',
    'cloister_peers_refused_total{process="server",code="some-code"} 1',
    'cloister_sent_bytes_total{process="server",peer="worker1"} 110',
    'cloister_received_bytes_total{process="server",peer="worker1"} 33',
    'cloister_held_out_score{process="server",score="auc"} 0.75',
    'cloister_held_out_examples{process="server"} 50',
    'cloister_saved_timestamp_seconds{process="server",what="model"} 5',
    'cloister_checkpoint_bytes{process="server"} 4096',
    'cloister_checkpoint_seconds_sum{process="server"} 0.5',
    'cloister_model_step{process="server"} 5',
    'cloister_shards_reassigned_total{process="server"} 1',
    'cloister_step_seconds_sum{process="worker0"} 0.25',
    'cloister_step_compute_seconds_sum{process="worker0"} 0.2',
    'cloister_step_wait_seconds_sum{process="worker0"} 0.05',
  ]) {
    expect(lines).toContain(line)
  }
})

test('peers cannot make ever more time series', async () => {
  const server = await serve()
  for (let index = 0; index < 300; index++) {
    server.observe('server', { kind: 'peer-refused', address: 'a', error: { ...error, code: `made-up-${index}` } })
  }
  server.observe('server', { kind: 'peer-refused', address: 'a', error: { ...error, code: 'no\ncode"} 1' } })
  const text = await (await fetch(`http://${server.address}/metrics`)).text()
  expect(text.match(/^cloister_peers_refused_total\{/gm)).toHaveLength(101)
  expect(text).toContain('cloister_peers_refused_total{process="server",code="other"} 201')
})

test('docs/metrics.md lists every metric with its type and no other', async () => {
  const { text } = await observed()
  const served = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => `${name} ${type}`)
  const page = readFileSync(join(root, 'docs/metrics.md'), 'utf8')
  const documented = [...page.matchAll(/^\| `(cloister_\w+)` \| (\w+) \|/gm)].map(([, name, type]) => `${name} ${type}`)
  expect(documented.sort()).toEqual(served.sort())
})

test('only /metrics, only read', async () => {
  const { address } = await serve()
  const status = async (path: string, method: string) => (await fetch(`http://${address}${path}`, { method })).status
  expect(await status('/metrics', 'HEAD')).toBe(200)
  expect(await status('/metrics?a=b', 'GET')).toBe(200)
  expect(await status('/', 'GET')).toBe(404)
  expect(await status('/metrics/../etc', 'GET')).toBe(404)
  expect(await status('/metrics', 'POST')).toBe(405)
})

test('junk on the port ends that connection and nothing else', async () => {
  const { address } = await serve()
  const [host, port] = address.split(':') as [string, string]
  await new Promise((done) => {
    const socket = connect({ host, port: Number(port) }, () =>
      socket.write(`GET /metrics HTTP/1.1\r\nx: ${'y'.repeat(20_000)}`),
    )
    socket.on('data', () => {}).on('error', () => {})
    socket.once('close', done)
  })
  expect((await fetch(`http://${address}/metrics`)).status).toBe(200)
})

test('a port that is taken is refused', async () => {
  const { address } = await serve()
  const port = Number(address.split(':')[1])
  await expect(serveMetrics({ host: '127.0.0.1', port, now: () => new Date(0) })).rejects.toMatchObject({
    code: 'address-unusable',
  })
})

requires('prometheus').describe('Prometheus', () => {
  test('its linter has nothing to say', async () => {
    const { text } = await observed()
    const { status, stdout, stderr } = spawnSync(promtool, ['check', 'metrics'], { input: text, encoding: 'utf8' })
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '', stderr: '' })
    const bad = spawnSync(promtool, ['check', 'metrics'], { input: '# TYPE a_total gauge\na_total 1\n' })
    expect(bad.status).not.toBe(0)
  })

  test('it takes the alert rules', () => {
    const { status } = spawnSync(promtool, ['check', 'rules', join(root, 'deploy/prometheus/alerts.yaml')])
    expect(status).toBe(0)
  })
})
