// SPDX-License-Identifier: Apache-2.0
/**
 * An embedding table of 30 million rows × 16 with Adagrad in one process, as a server holds it: filled by gradients, then
 * trained with batches of DLRM's size, and captured for a checkpoint meanwhile. Prints memory of the whole process, and rows
 * a second and CPU time of gather and of update.
 *
 *     npm run bench -- memory [--rows 30000000] [--width 16] [--batch 3328] [--batches 500] [--engine tensorflow|javascript]
 */
import { parseArgs } from 'node:util'
import { createJavascriptEngine } from '../src/engine/javascript.ts'
import { createTensorflowEngine } from '../src/engine/tensorflow.ts'
import { mean } from '../src/federation/aggregators/mean.ts'
import { ModelState } from '../src/federation/model-state.ts'
import { adagrad } from '../src/federation/optimizers/adagrad.ts'
import { TensorSet } from '../src/federation/tensor-set.ts'
import { touchedRows } from '../src/federation/touched-rows.ts'
import { RandomStream } from '../src/models/philox.ts'
import { engineDirectory } from '../test/requirements.ts'
import { median, table as print } from './statistics.ts'

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '30000000' },
    width: { type: 'string', default: '16' },
    batch: { type: 'string', default: '3328' },
    batches: { type: 'string', default: '500' },
    engine: { type: 'string', default: 'tensorflow' },
  },
})
const rows = Number(values.rows)
const width = Number(values.width)
const batch = Number(values.batch)
const name = 'embedding'

const engine =
  values.engine === 'javascript'
    ? createJavascriptEngine()
    : createTensorflowEngine({ directory: engineDirectory, threads: 1 })
const spec = { name, width, rows, initial: { scale: 0.01 } }
const model = new ModelState({
  engine,
  manifest: [],
  optimizer: adagrad(),
  aggregator: mean,
  weightDecay: 0,
  values: new Map(),
  tables: { specs: [spec], seed: 1, maximumRows: rows },
})
const table = model.tables.get(name)!
const nothing = TensorSet.allocate(engine, [])

interface Cost {
  readonly wallMs: number
  readonly cpuMs: number
}
const costs = new Map<string, Cost[]>()

async function measured(label: string, work: () => unknown): Promise<void> {
  const [wall, cpu] = [performance.now(), process.cpuUsage()]
  await work()
  const { user, system } = process.cpuUsage(cpu)
  const cost = { wallMs: performance.now() - wall, cpuMs: (user + system) / 1000 }
  costs.set(label, [...(costs.get(label) ?? []), cost])
}

const filling = 1 << 16
/** As a server's: filled from the network over and over, not allocated anew. */
const allGradients = new Float32Array(Math.max(filling, batch) * width).fill(1e-3)
const gathered = new Float32Array(batch * width)
const drawn = new Int32Array(batch)

async function update(ids: Uint32Array, places: Int32Array): Promise<void> {
  const gradients = allGradients.subarray(0, ids.length * width)
  await model.apply(
    [{ worker: 0, examples: 128, values: nothing, rows: new Map([[name, { ids, gradients, places }]]) }],
    0.01,
  )
}

function report(moment: string): void {
  const { rss } = process.memoryUsage()
  console.log(`${moment}: ${table.size.toLocaleString('en')} rows, ${(rss / 1e9).toFixed(2)} GB resident`)
}

async function train(label: string): Promise<void> {
  for (let index = 0; index < Number(values.batches); index++) {
    for (let at = 0; at < batch; at++) drawn[at] = random.below(rows)
    let ids: Uint32Array = new Uint32Array()
    await measured(`${label}touched rows`, () => {
      ids = touchedRows(drawn, spec).ids
    })
    const out = gathered.subarray(0, ids.length * width)
    let places: Int32Array = new Int32Array()
    await measured(`${label}gather`, () => {
      places = table.gather(ids, out, { create: true })
    })
    await measured(`${label}update`, () => update(ids, places))
  }
}

const random = new RandomStream(1, 'bench')
report('start')
const began = performance.now()
for (let first = 0; first < rows; first += filling) {
  const ids = Uint32Array.from({ length: Math.min(filling, rows - first) }, (_, index) => first + index)
  await update(ids, table.places(ids))
}
const seconds = (performance.now() - began) / 1000
report(`filled in ${seconds.toFixed(0)} s, ${Math.round(rows / seconds).toLocaleString('en')} rows/s`)
await train('')
report('trained')

const capture = model.captureRows()
let captured = 0
let worst = 0
const savingBegan = performance.now()
const blocks = capture.blocks()
const saving = (async () => {
  for (;;) {
    const start = performance.now()
    const { value } = blocks.next()
    worst = Math.max(worst, performance.now() - start)
    if (value === undefined) break
    captured += value.ids.length
    // What writing a block takes is not part of this: a turn for training after each.
    await new Promise(setImmediate)
  }
  return performance.now() - savingBegan
})()
await train('during a capture: ')
const captureMs = await saving
capture.commit()
report(
  `captured ${captured.toLocaleString('en')} rows meanwhile, ${captureMs.toFixed(0)} ms, longest block ${worst.toFixed(1)} ms`,
)

print(
  ['', 'wall ms', 'CPU ms', 'rows/s'],
  [...costs].map(([label, list]) => {
    const wall = median(list.map(({ wallMs }) => wallMs))
    const cpu = list.reduce((sum, { cpuMs }) => sum + cpuMs, 0) / list.length
    return [label, wall.toFixed(3), cpu.toFixed(3), Math.round((batch / wall) * 1000).toLocaleString('en')]
  }),
)
await model.close()
await engine.close()
