import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { jobDigest } from './job.ts'
import { ConfigError, loadDeployment, loadJob } from './load.ts'

const directory = mkdtempSync(join(tmpdir(), 'cloister-config-'))
const minimal = {
  workload: 'image-classification',
  workers: 2,
  model: { name: 'resnet', layers: 20 },
  data: { name: 'cifar-10' },
  training: { batchSize: 128, updates: 10, learningRate: { schedule: 'constant', rate: 0.1 } },
}

function file(content: unknown): string {
  const path = join(directory, `${Math.random()}.json`)
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

function refusal(run: () => unknown): ConfigError {
  try {
    run()
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('expected a refusal')
}

test('defaults are filled in, and are part of the digest', () => {
  const job = loadJob(file(minimal))
  expect(job.training.optimizer).toEqual({ name: 'momentum', momentum: 0.9 })
  expect(job.data.partition).toEqual({ scheme: 'iid' })
  const explicit = loadJob(file({ ...minimal, seed: 1, data: { name: 'cifar-10', crop: 24 } }))
  expect(jobDigest(explicit)).toEqual(jobDigest(job))
  expect(jobDigest(loadJob(file({ ...minimal, seed: 2 })))).not.toEqual(jobDigest(job))
})

test('the digest does not depend on the order of keys nor on $schema', () => {
  const reversed = Object.fromEntries(Object.entries({ ...minimal, $schema: 'x' }).reverse())
  expect(jobDigest(loadJob(file(reversed)))).toEqual(jobDigest(loadJob(file(minimal))))
})

test.each([
  [
    'an unknown key',
    { ...minimal, training: { ...minimal.training, momentun: 0.9 } },
    'training.momentun: unknown key',
  ],
  ['a wrong type', { ...minimal, workers: '2' }, 'workers'],
  ['a depth that is not 6n+2', { ...minimal, model: { name: 'resnet', layers: 21 } }, 'model.layers: expected 6n+2'],
  ['zero workers', { ...minimal, workers: 0 }, 'workers'],
  [
    'an unknown schedule',
    { ...minimal, training: { ...minimal.training, learningRate: { schedule: 'x' } } },
    'learningRate',
  ],
])('%s is refused with its path', (_, content, path) => {
  const error = refusal(() => loadJob(file(content)))
  expect(error.code).toBe('config-invalid')
  expect(error.message).toContain(path)
})

test('all problems are listed at once', () => {
  const error = refusal(() => loadJob(file({ ...minimal, workers: 0, seed: -1 })))
  expect(error.message).toContain('workers')
  expect(error.message).toContain('seed')
})

test('--set changes a field and is validated like the file', () => {
  expect(loadJob(file(minimal), ['training.updates=7', 'training.mode={"name":"synchronous"}']).training.updates).toBe(
    7,
  )
  expect(refusal(() => loadJob(file(minimal), ['training.updatez=7'])).message).toContain(
    'training.updatez: unknown key',
  )
  expect(refusal(() => loadJob(file(minimal), ['nonsense'])).message).toContain('expected PATH=VALUE')
  expect(refusal(() => loadJob(file(minimal), ['__proto__.x=1'])).message).toContain('reserved')
  expect(refusal(() => loadJob(file(minimal), ['workers.x.y=1'])).message).toContain('not an object')
})

test('a missing file and broken JSON are told apart', () => {
  expect(refusal(() => loadJob(join(directory, 'absent.json'))).code).toBe('config-unreadable')
  expect(refusal(() => loadJob(file('{"workload":'))).code).toBe('config-not-json')
})

test('a deployment has defaults and refuses unknown keys', () => {
  expect(loadDeployment(undefined).engine).toEqual({ choice: 'auto', threads: 0 })
  expect(refusal(() => loadDeployment(file({ engine: { thread: 2 } }))).message).toContain('engine.thread: unknown key')
  expect(refusal(() => loadDeployment(file({ server: { addresses: ['server0:7000', 'nowhere'] } }))).message).toContain(
    'expected host:port',
  )
})
