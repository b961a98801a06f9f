/** The real TensorBoard in a real browser draws a run's curves and its graph. */
import { spawn } from 'node:child_process'
import { chromium as browserOf, type Page } from 'playwright-core'
import { expect, test } from 'vitest'
import { chromium, python, requires } from '../requirements.ts'
import { Sandbox, smallJob } from './program.ts'

/** Serves `directory` on a free port until stopped. */
async function tensorboard(directory: string): Promise<{ url: string; stop(): Promise<void> }> {
  const flags = ['--logdir', directory, '--host', '127.0.0.1', '--port', '0', '--load_fast=false']
  const child = spawn(python, ['-m', 'tensorboard.main', ...flags], { stdio: ['ignore', 'ignore', 'pipe'] })
  const gone = new Promise((exited) => child.once('exit', exited))
  const url = await new Promise<string>((found, failed) => {
    let text = ''
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      text += part
      const at = /http:\/\/127\.0\.0\.1:\d+\//.exec(text)
      if (at !== null) found(at[0])
    })
    child.once('exit', () => failed(new Error(text)))
  })
  return {
    url,
    async stop() {
      child.kill('SIGKILL')
      await gone
    },
  }
}

/** What is drawn of the graph's top level: boxes with their names, and lines between them. */
async function drawnGraph(page: Page) {
  await page.locator('g.node text.nodelabel').first().waitFor()
  const names = await page.locator('g.node').evaluateAll((nodes) => nodes.map((node) => node.getAttribute('data-name')))
  return { names: names.sort(), edges: await page.locator('g.edge path.edgeline').count() }
}

requires('tensorflow-library', 'python-tensorboard', 'chromium').describe('TensorBoard', () => {
  test('draws the curves and the graph of a ResNet job', async () => {
    const sandbox = new Sandbox()
    const data = await sandbox.synthesize()
    const job = sandbox.write('job.json', smallJob({ updates: 6, training: { evaluateEvery: 3 } }))
    const run = ['simulate', '--job', job, '--data', data, '--out', 'run', '--engine', 'tensorflow']
    expect(await sandbox.run(run)).toMatchObject({ status: 0 })
    const served = await tensorboard(sandbox.path('run/tensorboard'))
    const browser = await browserOf.launch({ executablePath: chromium, args: ['--no-sandbox'] })
    try {
      const page = await browser.newPage()
      const failures: string[] = []
      page.on('pageerror', (error) => failures.push(error.message))
      await page.goto(`${served.url}#timeseries`)
      for (const tag of ['held_out/accuracy', 'held_out/loss']) await page.getByText(tag).first().waitFor()
      await page.goto(`${served.url}#graphs`)
      await page.reload()
      const { names, edges } = await drawnGraph(page)
      expect(names).toEqual(expect.arrayContaining(['batch', 'gradient', 'loss', 'metric', 'parameter', 'train']))
      expect(edges).toBeGreaterThan(5)
      expect(failures).toEqual([])
    } finally {
      await browser.close()
      await served.stop()
    }
  })
})
