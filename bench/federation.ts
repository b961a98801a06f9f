// SPDX-License-Identifier: Apache-2.0
/**
 * What federation costs: ResNet-20, batch 128, 24×24, as `cloister train` (one process) and as `cloister simulate` with one and with
 * two workers, attested TLS between processes, on the same cores, in turn.
 *
 *     npm run bench -- federation [--rounds 3] [--updates 150] [--data DIR]
 *
 * CPU a step is the difference between a long and a short run, so that start-up, tracing and final scores fall out; it counts
 * every process of the run. Images a second are from the first assignment to the last update.
 */
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type MeasuredRun, measuredRun } from './simulated-run.ts'
import { median, table } from './statistics.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    updates: { type: 'string', default: '150' },
    data: { type: 'string', default: join(resolve(import.meta.dirname, '..'), '../shared/data/cifar10') },
  },
})
const shortUpdates = 30
const longUpdates = shortUpdates + Number(values.updates)

const cases = [
  { name: 'one process (train)', command: 'train', settings: [] },
  { name: '1 server + 1 worker', command: 'simulate', settings: ['workers=1'] },
  {
    name: '1 server + 1 worker, prefetch',
    command: 'simulate',
    settings: ['workers=1', 'training.mode.prefetch=true'],
  },
  { name: '1 server + 2 workers', command: 'simulate', settings: ['workers=2'] },
] as const

const measured = cases.map(() => [] as { short: MeasuredRun; long: MeasuredRun }[])
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [index, { command, settings }] of cases.entries()) {
    const run = (updates: number) =>
      measuredRun({
        command,
        job: 'quick-start.json',
        set: ['training.batchSize=128', 'training.evaluateEvery=0', `training.updates=${updates}`, ...settings],
        data: values.data,
      })
    measured[index]!.push({ short: await run(shortUpdates), long: await run(longUpdates) })
  }
}

const cpuPerStep = (index: number) =>
  measured[index]!.map(({ short, long }) => (long.cpuSeconds - short.cpuSeconds) / (longUpdates - shortUpdates))
const baseline = cpuPerStep(0)
table(
  ['', 'images/s', 'CPU s/step', 'CPU ratio', 'images ratio', 'KB/step', 'server MiB'],
  cases.map(({ name }, index) => {
    const runs = measured[index]!.map(({ long }) => long)
    const cpu = cpuPerStep(index)
    const throughput = runs.map((run, round) => run.examplesPerSecond / measured[0]![round]!.long.examplesPerSecond)
    return [
      name,
      median(runs.map((run) => run.examplesPerSecond)).toFixed(0),
      median(cpu).toFixed(3),
      median(cpu.map((seconds, round) => seconds / baseline[round]!)).toFixed(3),
      median(throughput).toFixed(3),
      index === 0 ? '-' : (median(runs.map((run) => run.bytes / run.steps)) / 1000).toFixed(0),
      index === 0 ? '-' : median(runs.map((run) => run.serverMebibytes)).toFixed(0),
    ]
  }),
)
