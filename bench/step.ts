// SPDX-License-Identifier: Apache-2.0
/**
 * One training step (forward, backward, weight decay, momentum) of ResNet-56, batch 128, 24×24, and of ResNet-50, batch 32,
 * 32×32: ours against TensorFlow's Python API and PyTorch, processes in turn, so that the machine's drift meets all alike.
 *
 *     npm run bench -- step [--rounds 3] [--steps 10] [--networks 56,50]
 *
 * Needs Python with tensorflow-cpu (CLOISTER_TEST_PYTHON) and, for PyTorch, CLOISTER_BENCH_TORCH; what is absent is left out.
 */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { engineDirectory } from '../src/engine/locate.ts'
import { compileTraining } from '../src/engine/step.ts'
import { createTensorflowEngine } from '../src/engine/tensorflow.ts'
import { mean } from '../src/federation/aggregators/mean.ts'
import { manifestOf } from '../src/federation/manifest.ts'
import { ModelState } from '../src/federation/model-state.ts'
import { momentum } from '../src/federation/optimizers/momentum.ts'
import { TensorSet } from '../src/federation/tensor-set.ts'
import { classification } from '../src/models/classification.ts'
import { field, fromLayersModel } from '../src/models/layers-model.ts'
import { bottleneckResNet, cifarResNet } from '../src/models/resnet.ts'
import { cacheDirectory, python } from '../test/requirements.ts'
import { median, table } from './statistics.ts'

interface Measured {
  readonly peer: string
  readonly cpuSeconds: readonly number[]
  readonly wallSeconds: readonly number[]
}

interface MeasuredRound extends Measured {
  readonly round: number
}

const shapes = { '20': [128, 24], '56': [128, 24], '50': [32, 32] } as const
type Network = keyof typeof shapes

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '10' },
    networks: { type: 'string', default: '56,50' },
    ours: { type: 'string' },
  },
})
const steps = Number(values.steps)
const warmUp = 3

if (values.ours === undefined) compare()
else console.log(JSON.stringify(await measureOurs(values.ours as Network)))

function compare(): void {
  for (const network of values.networks.split(',') as Network[]) {
    const [batch, size] = shapes[network]
    const peers = [
      {
        command: process.execPath,
        leading: ['--import', 'tsx', import.meta.filename, '--ours', network, '--steps', `${steps}`],
      },
      { command: python, leading: [join(import.meta.dirname, 'peers/tensorflow_step.py')] },
      { command: process.env.CLOISTER_BENCH_TORCH, leading: [join(import.meta.dirname, 'peers/torch_step.py')] },
    ]
    const gathered = new Map<string, MeasuredRound[]>()
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [index, { command, leading }] of peers.entries()) {
        if (command === undefined) continue
        const parameters = index === 0 ? [] : [network, batch, size, steps, warmUp].map(String)
        const { stdout, status, stderr } = spawnSync(command, [...leading, ...parameters], { encoding: 'utf8' })
        if (status !== 0) {
          if (index === 0) throw new Error(stderr)
          if (round === 0) console.error(`left out: ${leading.at(-1)}: ${stderr.trim().split('\n').at(-1)}`)
          continue
        }
        const measured = JSON.parse(stdout.trim().split('\n').at(-1)!) as Measured
        gathered.set(measured.peer, [...(gathered.get(measured.peer) ?? []), { ...measured, round }])
      }
    }
    const ours = [...gathered.values()][0]!
    // Ratios are of runs that followed each other.
    const ratio = (peer: MeasuredRound[], key: 'cpuSeconds' | 'wallSeconds') =>
      median(peer.map((run) => median(ours[run.round]![key]) / median(run[key])))
    console.log(`\nResNet-${network}, batch ${batch}, ${size}×${size}: a step, median of ${values.rounds} × ${steps}`)
    table(
      ['', 'CPU s', 'wall s', 'ours/CPU', 'ours/wall'],
      [...gathered].map(([peer, runs]) => [
        peer,
        median(runs.flatMap((run) => run.cpuSeconds)).toFixed(3),
        median(runs.flatMap((run) => run.wallSeconds)).toFixed(3),
        ratio(runs, 'cpuSeconds').toFixed(2),
        ratio(runs, 'wallSeconds').toFixed(2),
      ]),
    )
  }
}

async function measureOurs(network: Network): Promise<Measured> {
  const [batchSize, size] = shapes[network]
  const engine = createTensorflowEngine({
    directory: process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory),
    threads: 2,
  })
  const layers =
    network === '50'
      ? bottleneckResNet({ depth: 50, imageSize: size })
      : cifarResNet({ depth: Number(network), version: 2, imageSize: size })
  const model = fromLayersModel(layers, {
    name: 'bench',
    batch: { images: { shape: [size, size, 3], dtype: 'float32' }, labels: { shape: [], dtype: 'int32' } },
    objective: classification,
    inputs: (batch) => field(batch, 'images'),
  })
  const step = compileTraining(engine, model, batchSize)
  const state = new ModelState({
    engine,
    manifest: manifestOf(model.variables),
    optimizer: momentum({ momentum: 0.9 }),
    aggregator: mean,
    weightDecay: 2e-4,
    values: model.initialValues(1),
  })
  const images = Float32Array.from({ length: batchSize * size * size * 3 }, (_, i) => Math.sin(i * 12.9898) * 1.7)
  const labels = Int32Array.from({ length: batchSize }, (_, i) => i % 10)
  // Held by the engine, as the peers hold theirs.
  const batch = {
    images: engine.tensor({ shape: [batchSize, size, size, 3], dtype: 'float32' }, images),
    labels: engine.tensor({ shape: [batchSize], dtype: 'int32' }, labels),
  }
  const values = TensorSet.allocate(engine, state.manifest)

  const update = async (index: number): Promise<void> => {
    const snapshot = state.snapshot()
    const result = await step.run(snapshot.parameters.named(), batch, [1, index])
    for (const [at, { name, role }] of state.manifest.entries()) {
      if (role !== 'statistic') values.tensors[at]!.set(result.gradients.get(name)!.data as Float32Array)
    }
    result.dispose()
    await state.apply([{ worker: 0, examples: batchSize, values }], 0.01)
    snapshot.release()
  }
  for (let index = 0; index < warmUp; index++) await update(index)
  const cpuSeconds: number[] = []
  const wallSeconds: number[] = []
  for (let index = 0; index < steps; index++) {
    const [cpu, wall] = [process.cpuUsage(), performance.now()]
    await update(index)
    const { user, system } = process.cpuUsage(cpu)
    cpuSeconds.push((user + system) / 1e6)
    wallSeconds.push((performance.now() - wall) / 1000)
  }
  await engine.close()
  return { peer: `Cloister, ${engine.description}`, cpuSeconds, wallSeconds }
}
