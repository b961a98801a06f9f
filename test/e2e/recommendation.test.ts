/** The recommendation example as a user runs it, one server and four workers, made smaller by `--set` alone. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { anyEngine, root, Sandbox } from './program.ts'

const example = join(root, 'examples/recommendation.json')
const smaller = [
  ...['--set', 'model.bottom=[32]', '--set', 'model.top=[32]', '--set', 'training.updates=240'],
  ...['--set', 'training.evaluateEvery=120', '--set', 'training.learningRate.rate=0.03'],
]

async function clicks(sandbox: Sandbox): Promise<string> {
  const { status, err } = await sandbox.run(['data', 'synthesize', 'criteo', 'logs', '--rows', '20000'])
  expect({ status, err }).toEqual({ status: 0, err: '' })
  return sandbox.path('logs')
}

test('from click logs to a model that is better than chance', async () => {
  const sandbox = new Sandbox()
  const data = await clicks(sandbox)
  const args = ['simulate', '--job', example, ...smaller, '--data', data, '--out', 'run', '--engine', anyEngine]
  const { status, out, err } = await sandbox.run(args)
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out).toMatch(/\nDLRM training finished\.\n$/)
  expect(out).toContain('SYNTHETIC DATA')
  expect(sandbox.files('run')).toEqual(
    expect.arrayContaining([
      ...['server.log', 'worker0.log', 'worker1.log', 'worker2.log', 'worker3.log', 'loss.svg', 'auc.svg'],
      ...['model/variables.safetensors', 'checkpoints/server'],
    ]),
  )
  const result = sandbox.json('run/result.json') as { heldOut: Record<'auc' | 'logLoss' | 'accuracy', number> }
  expect(result).toMatchObject({
    workload: 'recommendation',
    dataSource: 'synthetic',
    mode: 'asynchronous',
    steps: 240,
  })
  // A guess by the click rate of about a quarter has log loss 0.57.
  const { auc, logLoss, accuracy } = result.heldOut
  expect(auc).toBeGreaterThan(0.6)
  expect(logLoss).toBeLessThan(0.6)
  expect(accuracy).toBeGreaterThan(0.7)
})

test('Ctrl-C: what was learnt is saved and said, 130; with --resume the run goes on from there', async () => {
  const sandbox = new Sandbox()
  const data = await clicks(sandbox)
  const words = [
    ...['simulate', '--job', example, ...smaller, '--set', 'training.updates=900', '--set', 'servers=2'],
    ...['--data', data, '--out', 'run', '--engine', anyEngine],
  ]
  const run = sandbox.start(words)
  await run.says(/held out at step 120/)
  run.kill('SIGINT')
  const { status, out } = await run.exited
  expect(status).toBe(130)
  expect(out).not.toContain('DLRM training finished.')
  expect(sandbox.json('run/result.json')).toMatchObject({ interrupted: true })
  expect(sandbox.files('run')).toEqual(
    expect.arrayContaining(['model/variables-1-of-2.safetensors', 'model/variables-2-of-2.safetensors']),
  )
  const { steps } = sandbox.json('run/result.json') as { steps: number }
  expect(steps).toBeLessThan(900)

  const other = await sandbox.run([...words, '--resume', '--set', 'seed=99'])
  expect(other.status).toBe(1)
  expect(other.err).toContain('cloister: run-of-another-job: ')
  expect((await sandbox.run(words)).err).toContain('cloister: out-not-empty: ')
  const resumed = await sandbox.run([...words, '--resume'])
  expect({ status: resumed.status, err: resumed.err }).toEqual({ status: 0, err: '' })
  expect(resumed.out).toContain(`server: resumed at step ${steps}`)
  expect(resumed.out).toMatch(/\nDLRM training finished\.\n$/)
  expect(sandbox.json('run/result.json')).toMatchObject({ interrupted: false, steps: 900 })
})
