// SPDX-License-Identifier: Apache-2.0
/**
 * DLRM, 1 server and 4 workers, asynchronous: Cloister (attested TLS) beside TensorFlow's own parameter server (plain TCP), on
 * the same cores, in turn, over rows of the same distribution: 26 columns of Kaggle's cardinalities, Zipf 1.05.
 *
 *     npm run bench -- recommendation [--rounds 3] [--seconds 20] [--batches 128,2048]
 *
 * Ours is the difference between a long and a short run, so that start-up and the first steps fall out, as they do of the peer's
 * figures. The peer is
 * ../shared/tools/peers/tf_ps_dlrm.py, run by CLOISTER_TEST_PYTHON (TensorFlow installed).
 */
import { execFileSync } from 'node:child_process'
import { createWriteStream, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { finished } from 'node:stream/promises'
import { parseArgs } from 'node:util'
import { RandomStream } from '../src/models/philox.ts'
import { type MeasuredRun, measuredRun } from './simulated-run.ts'
import { median, table } from './statistics.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '20' },
    batches: { type: 'string', default: '128,2048' },
    rows: { type: 'string', default: '524288' },
  },
})
const peer = join(resolve(import.meta.dirname, '..'), '../shared/tools/peers/tf_ps_dlrm.py')
const python = process.env.CLOISTER_TEST_PYTHON
if (python === undefined || !existsSync(peer)) {
  throw new Error(`expected ${peer} and a Python with TensorFlow in CLOISTER_TEST_PYTHON`)
}

/** The peer's own list. */
const cardinalities = [
  1460, 583, 1_000_000, 500_000, 305, 24, 12_517, 633, 3, 93_145, 5683, 1_000_000, 3194, 27, 14_992, 1_000_000, 10,
  5652, 2173, 4, 1_000_000, 18, 15, 286_181, 105, 142_572,
]
const zipfExponent = 1.05
const warmUpUpdates = 80
/** The example's first. */
const transfers = ['bfloat16', 'float32']

interface Figures {
  readonly examplesPerSecond: number
  readonly cpuPer100k: number
  readonly bytesPerExample: number
  readonly serverMebibytes: number
}

const directory = mkdtempSync(join(tmpdir(), 'cloister-bench-criteo-'))
try {
  await writeRows(join(directory, 'train.txt'), Number(values.rows))
  for (const batch of values.batches.split(',').map(Number)) await compare(batch)
} finally {
  rmSync(directory, { recursive: true })
}

async function compare(batch: number): Promise<void> {
  const theirs: Figures[] = []
  const ours = new Map(transfers.map((transfer) => [transfer, [] as Figures[]]))
  const shares = new Map<string, string>()
  for (let round = 0; round < Number(values.rounds); round++) {
    theirs.push(tensorflow(batch))
    for (const [transfer, all] of ours) {
      const { figures, share } = await cloister(batch, transfer)
      all.push(figures)
      shares.set(transfer, share)
    }
  }
  console.log(`\nbatch ${batch}, 1 server + 4 workers, asynchronous`)
  const row = (name: string, all: readonly Figures[]): string[] => [
    name,
    median(all.map((it) => it.examplesPerSecond)).toFixed(0),
    median(all.map((it) => it.examplesPerSecond / theirs[all.indexOf(it)]!.examplesPerSecond)).toFixed(2),
    median(all.map((it) => it.cpuPer100k)).toFixed(1),
    median(all.map((it) => it.bytesPerExample)).toFixed(0),
    median(all.map((it) => it.serverMebibytes)).toFixed(0),
  ]
  table(
    ['', 'examples/s', 'ratio', 'CPU s/100k', 'bytes/example', 'server MiB'],
    [
      row('TensorFlow, plain TCP, float32', theirs),
      ...Array.from(ours, ([transfer, all]) => row(`Cloister, attested TLS, ${transfer}`, all)),
    ],
  )
  for (const [transfer, share] of shares) console.log(`${transfer}: ${share}`)
}

function tensorflow(batch: number): Figures {
  const options = ['--mode', 'ps', '--tables', 'fused', '--dedup', '--intra-op', '1']
  const words = [peer, ...options, '--batch', `${batch}`, '--seconds', values.seconds]
  const printed = execFileSync(python!, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const result = JSON.parse(printed.trim().split('\n').at(-1)!)
  return {
    examplesPerSecond: result.examples_per_s,
    cpuPer100k: result.cpu_s_per_100k,
    bytesPerExample: result.loopback_bytes_per_example,
    serverMebibytes: result.ps_peak_rss_mb,
  }
}

async function cloister(batch: number, transfer: string): Promise<{ figures: Figures; share: string }> {
  const run = (updates: number): Promise<MeasuredRun> =>
    measuredRun({
      command: 'simulate',
      job: 'recommendation.json',
      set: [
        'workers=4',
        'data.categories={"scheme":"vocabulary","minimumCount":1,"maximumValues":1000000}',
        'data.heldOut={"scheme":"first","fraction":0.002}',
        `training.batchSize=${batch}`,
        `training.transfer=${transfer}`,
        'training.evaluateEvery=0',
        `training.updates=${updates}`,
      ],
      data: directory,
    })
  // As many updates as the peer does before it measures; what is measured is about as long as the peer's window.
  const short = await run(warmUpUpdates)
  const updates = warmUpUpdates + Math.ceil((short.examplesPerSecond / batch) * Number(values.seconds))
  const long = await run(updates)
  const examples = long.examples - short.examples
  const figures = {
    examplesPerSecond: examples / (trainingSeconds(long) - trainingSeconds(short)),
    cpuPer100k: ((long.cpuSeconds - short.cpuSeconds) / examples) * 1e5,
    bytesPerExample: (long.bytes - short.bytes) / examples,
    serverMebibytes: long.serverMebibytes,
  }
  return { figures, share: shareOf(long) }
}

function trainingSeconds({ examples, examplesPerSecond }: MeasuredRun): number {
  return examples / examplesPerSecond
}

/** Where a worker's time goes, and how long the server is at an update. */
function shareOf({ events }: MeasuredRun): string {
  const sum = (kind: string, field: string): number =>
    events.filter((event) => event.kind === kind).reduce((total, event) => total + Number(event[field]), 0)
  const [iteration, compute] = [sum('step', 'iterationMs'), sum('step', 'computeMs')]
  const apply = sum('update', 'applyMs')
  const percent = (part: number): string => `${((100 * part) / iteration).toFixed(0)} %`
  return `computing ${percent(compute)} of the workers' time, waiting ${percent(iteration - compute)}; server at updates ${percent(4 * apply)} of its own`
}

/** Criteo's format with the peer's distribution: popular ids scattered, no effect on the label. */
async function writeRows(path: string, rows: number): Promise<void> {
  const random = new RandomStream(1, 'bench rows')
  const cumulated = cardinalities.map((size) => {
    const sums = new Float64Array(size)
    for (let id = 0, sum = 0; id < size; id++) sums[id] = sum += (id + 1) ** -zipfExponent
    return sums
  })
  const file = createWriteStream(path)
  for (let row = 0; row < rows; row++) {
    const uniform = Array.from({ length: 40 }, () => random.uniform())
    const dense = Array.from({ length: 13 }, (_, column) => Math.floor(-8 * Math.log(1 - uniform[column]!)))
    const ids = cumulated.map((sums, column) => {
      const id = lowerBound(sums, uniform[13 + column]! * sums.at(-1)!)
      return ((Math.imul(id + 1, 2_654_435_761) ^ column) >>> 0).toString(16).padStart(8, '0')
    })
    const line = `${uniform[39]! < 0.25 ? 1 : 0}\t${dense.join('\t')}\t${ids.join('\t')}\n`
    if (!file.write(line)) await new Promise<void>((resume) => file.once('drain', () => resume()))
  }
  file.end()
  await finished(file)
}

function lowerBound(sums: Float64Array, value: number): number {
  let [low, high] = [0, sums.length - 1]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sums[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}
