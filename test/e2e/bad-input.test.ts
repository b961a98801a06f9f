/** Input that cannot be right: refused by the side that is at fault, with a code, a hint and exit status 1. */
import { truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { expect, test } from 'vitest'
import { anyEngine, type Exit, Sandbox, smallJob } from './program.ts'

interface Case {
  readonly name: string
  readonly job?: object
  readonly more?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly damage?: (images: string, sandbox: Sandbox) => void
  readonly code: string
  readonly says: string
}

const cases: readonly Case[] = [
  {
    name: 'a truncated data file',
    damage: (images) => truncateSync(`${images}/data_batch_3.bin`, 3073 * 7 + 11),
    code: 'data-truncated',
    says: 'data_batch_3.bin',
  },
  {
    name: 'a label above 9',
    damage: (images) => {
      const records = Buffer.alloc(3073 * 20)
      records[3073 * 4] = 10
      writeFileSync(`${images}/data_batch_2.bin`, records)
    },
    code: 'label-out-of-range',
    says: 'data_batch_2.bin',
  },
  {
    name: 'more workers than examples: an empty shard',
    job: smallJob({ workers: 2, data: { partition: { scheme: 'by-size', proportions: [1, 1e-9] } } }),
    code: 'shard-empty',
    says: 'worker',
  },
  { name: 'a data directory that is not there', more: ['--data', 'nowhere'], code: 'data-missing', says: 'nowhere' },
  {
    name: 'an unknown key in the job',
    job: { ...smallJob(), trainning: {} },
    code: 'config-invalid',
    says: 'trainning: unknown key',
  },
  {
    name: 'an engine directory without the library',
    more: ['--engine', 'tensorflow', '--engine-directory', 'empty'],
    code: 'engine-missing',
    says: 'cloister engine install',
  },
  {
    name: 'an out directory with an earlier run',
    damage: (_, sandbox) => {
      writeFileSync(sandbox.path('server.log'), '')
    },
    more: ['--out', '.'],
    code: 'out-not-empty',
    says: 'server.log',
  },
]

test.each(cases)('$name', async ({ job = smallJob(), more = [], env = {}, damage, code, says }) => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize('images', 20)
  damage?.(data, sandbox)
  const common = ['--engine', anyEngine, '--out', 'run', '--data', data]
  const file = sandbox.write('job.json', job)
  const ended = await sandbox.run(['simulate', '--job', file, ...common, ...more], { env })
  expectRefusal(ended, code, says)
})

test('a port that is taken', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize('images', 20)
  const taken = createServer()
  const port = await new Promise<number>((listening) => {
    taken.listen(0, '127.0.0.1', () => listening((taken.address() as { port: number }).port))
  })
  try {
    const job = sandbox.write('job.json', smallJob())
    const deployment = sandbox.write('deployment.json', { server: { listen: { port } } })
    const common = ['--engine', anyEngine, '--out', 'run', '--data', data]
    const ended = await sandbox.run(['simulate', '--job', job, '--deployment', deployment, ...common])
    expectRefusal(ended, 'address-unusable', String(port))
  } finally {
    taken.close()
  }
})

function expectRefusal({ status, out, err }: Exit, code: string, says: string): void {
  expect(err).toMatch(new RegExp(`cloister: (run-failed: )?${code}: `))
  expect(err).toContain(says)
  // A hint stands below the message.
  expect(err.trimEnd().split('\n').at(-1)).toMatch(/^ {2}\S/)
  expect(out).not.toContain('Optimization finished.')
  expect(status).toBe(1)
}
