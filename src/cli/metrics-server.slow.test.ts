// SPDX-License-Identifier: Apache-2.0
/** The real Prometheus scrapes the metrics, and they are made where an enclave's limits hold. */
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { gramineLimits, prometheus, requires } from '../../test/requirements.ts'
import { serveMetrics } from './metrics-server.ts'

const root = resolve(import.meta.dirname, '../..')

requires('gramine-limits').describe('inside Gramine', () => {
  test('metrics are served without what an enclave lacks', () => {
    const script = `
      import { get } from 'node:http'
      import { serveMetrics } from './dist/cli/metrics-server.js'
      const server = await serveMetrics({ host: '127.0.0.1', port: 0, now: () => new Date(0) })
      server.observe('server', { kind: 'finished', steps: 1, examples: 1, seconds: 1 })
      get('http://' + server.address + '/metrics', (response) => {
        response.pipe(process.stdout)
        response.once('end', () => server.close())
      })`
    const flags = ['--require', gramineLimits, '--input-type=module', '--eval', script]
    const served = execFileSync(process.execPath, flags, { cwd: root, encoding: 'utf8' })
    expect(served).toContain('cloister_finished{process="server"} 1')
  })
})

requires('prometheus').describe('Prometheus', () => {
  test('it scrapes them', async () => {
    const server = await serveMetrics({ host: '127.0.0.1', port: 0, now: () => new Date(0) })
    server.observe('server', { kind: 'evaluation', step: 8, examples: 50, scores: { auc: 0.75 } })
    const directory = mkdtempSync(join(tmpdir(), 'cloister-prometheus-'))
    const target = `{ job_name: cloister, scrape_interval: 200ms, scrape_timeout: 200ms, static_configs: [{ targets: ['${server.address}'] }] }`
    writeFileSync(join(directory, 'prometheus.yaml'), `scrape_configs: [${target}]\n`)
    const child = spawn(
      prometheus,
      [
        `--config.file=${join(directory, 'prometheus.yaml')}`,
        `--storage.tsdb.path=${join(directory, 'data')}`,
        '--web.listen-address=127.0.0.1:0',
        '--log.format=json',
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
    try {
      const address = await new Promise<string>((found, failed) => {
        let text = ''
        child.stderr.setEncoding('utf8').on('data', (part: string) => {
          text += part
          const bound =
            /"address":"(127\.0\.0\.1:\d+)","[^}]*Listening on|Listening on","address":"(127\.0\.0\.1:\d+)"/.exec(text)
          if (bound !== null) found((bound[1] ?? bound[2]) as string)
        })
        child.once('exit', () => failed(new Error(text)))
      })
      const query = async (): Promise<string | undefined> => {
        const response = await fetch(`http://${address}/api/v1/query?query=cloister_held_out_score`).catch(
          () => undefined,
        )
        if (response?.ok !== true) return undefined
        const { data } = (await response.json()) as { data: { result: { value: [number, string] }[] } }
        return data.result[0]?.value[1]
      }
      let value: string | undefined
      while (value === undefined) {
        await new Promise((next) => setTimeout(next, 100))
        value = await query()
      }
      expect(value).toBe('0.75')
    } finally {
      const gone = new Promise((exited) => child.once('exit', exited))
      child.kill('SIGKILL')
      await gone
      await server.close()
      rmSync(directory, { recursive: true, force: true })
    }
  })
})
