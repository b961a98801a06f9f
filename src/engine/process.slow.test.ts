// SPDX-License-Identifier: Apache-2.0
/** The engine in a process of its own: it ends cleanly, in a worker thread too, and within what Gramine allows. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { cacheDirectory, requires, sharedDirectory } from '../../test/requirements.ts'
import { engineDirectory } from './locate.ts'

const repository = resolve(import.meta.dirname, '../..')
const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)

/** Loads, traces, trains, reports, and leaves the engine open where `closing` is empty. */
const program = (closing: string) => `
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'
if (process.argv[2] === 'worker' && isMainThread) {
  const worker = new Worker(fileURLToPath(import.meta.url), { argv: ['inner'] })
  worker.on('error', (thrown) => { throw thrown })
} else {
  const tf = await import('@tensorflow/tfjs')
  const { createTensorflowEngine } = await import('./engine/tensorflow.js')
  const engine = createTensorflowEngine({ directory: ${JSON.stringify(directory)}, threads: 2 })
  const x = { shape: [300, 300], dtype: 'float32', data: new Float32Array(90000).fill(0.01) }
  const program = engine.compile({ name: 'p', inputs: { x }, build: ({ x }) => ({ g: tf.grad((x) => tf.sum(tf.matMul(x, x)))(x) }) })
  const { g } = await program.run({ x })
  console.log(g.data[0].toFixed(3))
  ${closing}
}
`

async function run(node: string[], script: string, args: string[] = []) {
  const child = spawn(process.execPath, [...node, join(built, script), ...args], { cwd: repository })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text))
  const [status, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.on('close', (...ended) => resolve(ended)),
  )
  return { status, signal, output }
}

let built: string

requires('tensorflow-library').describe('a process with the engine', () => {
  beforeAll(async () => {
    // Inside the repository, so that the compiled files find its dependencies.
    const cache = join(repository, 'node_modules/.cache')
    await mkdir(cache, { recursive: true })
    built = await mkdtemp(join(cache, 'cloister-'))
    const compiler = spawn(
      join(repository, 'node_modules/.bin/tsc'),
      ['-p', join(repository, 'tsconfig.build.json'), '--outDir', built],
      { stdio: 'inherit' },
    )
    expect(await new Promise((resolve) => compiler.on('close', resolve))).toBe(0)
    await writeFile(join(built, 'closing.js'), program('g.dispose(); await engine.close()'))
    await writeFile(join(built, 'leaving.js'), program(''))
    await writeFile(join(built, 'exiting.js'), program('program.run({ x }); process.exit(7)'))
  })
  afterAll(() => rm(built, { recursive: true, force: true }))

  const clean = { status: 0, signal: null, output: '6.000\n' }

  test('closes and ends with status 0 and nothing else to say', async () => {
    expect(await run([], 'closing.js')).toEqual(clean)
  })

  test('ends with status 0 when nothing was closed', async () => {
    expect(await run([], 'leaving.js')).toEqual(clean)
  })

  test('may be left in the middle of a run', async () => {
    expect(await run([], 'exiting.js')).toEqual({ ...clean, status: 7 })
  })

  test('works in a worker thread', async () => {
    expect(await run([], 'closing.js', ['worker'])).toEqual(clean)
  })

  const limits = join(sharedDirectory, 'tools/gramine-limits.cjs')
  test.runIf(existsSync(limits))('works with what Gramine does not have taken away', async () => {
    expect(await run(['--require', limits], 'closing.js')).toEqual(clean)
  })
})
