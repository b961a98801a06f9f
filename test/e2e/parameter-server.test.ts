import { expect, test } from 'vitest'
import { anyEngine, Sandbox } from './program.ts'

function clickJob(training: object): object {
  return {
    workload: 'recommendation',
    seed: 5,
    servers: 2,
    workers: 2,
    model: { name: 'dlrm', embeddingWidth: 4, bottom: [8], top: [8] },
    data: {
      name: 'criteo',
      categories: { scheme: 'vocabulary', minimumCount: 2, maximumValues: 1000 },
      heldOut: { scheme: 'first', fraction: 0.2 },
    },
    training: {
      batchSize: 16,
      optimizer: { name: 'adagrad', initialAccumulator: 0.01 },
      learningRate: { schedule: 'constant', rate: 0.05 },
      ...training,
    },
  }
}

test('click logs on one machine, as a user runs them: learnt, scored, drawn', async () => {
  const sandbox = new Sandbox()
  await sandbox.run(['data', 'synthesize', 'criteo', 'rows', '--rows', '20000'])
  const training = {
    batchSize: 128,
    updates: 120,
    evaluateEvery: 40,
    learningRate: { schedule: 'constant', rate: 0.1 },
  }
  const job = sandbox.write('job.json', clickJob(training))
  const { status, out, err } = await sandbox.run([
    ...['simulate', '--job', job, '--data', 'rows', '--out', 'run', '--engine', anyEngine],
  ])
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out).toMatch(/\nDLRM training finished\.\n$/)
  expect(sandbox.files('run')).toEqual(
    expect.arrayContaining(['server.log', 'server1.log', 'worker0.log', 'worker1.log', 'loss.svg', 'auc.svg']),
  )
  const result = sandbox.json('run/result.json')
  expect(result).toMatchObject({ workload: 'recommendation', dataSource: 'synthetic', steps: 120 })
  const { heldOut } = result as { heldOut: { auc: number; logLoss: number; accuracy: number } }
  expect(heldOut.auc).toBeGreaterThan(0.55)
  expect(heldOut.logLoss).toBeLessThan(0.69)
  expect(heldOut.accuracy).toBeGreaterThan(0.6)
})
