// SPDX-License-Identifier: Apache-2.0
/**
 * A TensorFlow.js network of one's own, traced and trained: `npx tsx examples/own-model.ts` after `npm ci`. Any tf.LayersModel
 * takes the place of the one here. It learns which of two coordinates is the larger, an easy task with a known answer.
 */
import { homedir } from 'node:os'
import { join } from 'node:path'
import * as tf from '@tensorflow/tfjs'
import type { Engine, HostTensor } from '../src/engine/engine.ts'
import { engineDirectory } from '../src/engine/locate.ts'
import { openEngine } from '../src/engine/select.ts'
import { compileEvaluation, compileTraining } from '../src/engine/step.ts'
import { classification } from '../src/models/classification.ts'
import { fromLayersModel } from '../src/models/layers-model.ts'
import { RandomStream } from '../src/models/philox.ts'

const [seed, batchSize, rate] = [1, 32, 0.5]

export async function trainOwnModel(engine: Engine, steps: number): Promise<{ losses: number[]; accuracy: number }> {
  const network = tf.sequential({
    layers: [
      tf.layers.dense({ units: 16, activation: 'relu', inputShape: [2] }),
      tf.layers.dropout({ rate: 0.1 }),
      tf.layers.dense({ units: 2 }),
    ],
  })
  const model = fromLayersModel(network, {
    name: 'larger-coordinate',
    batch: { points: { shape: [2], dtype: 'float32' }, labels: { shape: [], dtype: 'int32' } },
    objective: classification,
  })
  const step = compileTraining(engine, model, batchSize)
  const evaluation = compileEvaluation(engine, model, batchSize)
  const values = model.initialValues(seed)
  const parameters = new Map(
    model.variables.map(({ name, shape }) => [name, { shape, dtype: 'float32', data: values.get(name)! } as const]),
  )
  const random = new RandomStream(seed, 'points')
  const losses: number[] = []
  for (let index = 0; index < steps; index++) {
    // The second half of the seed is the number of the step: dropout draws from (seed, index) inside the graph.
    const result = await step.run(parameters, batch(random), [seed, index])
    losses.push(result.loss)
    for (const [name, gradient] of result.gradients) {
      const value = parameters.get(name)!.data
      for (let i = 0; i < value.length; i++) value[i]! -= rate * gradient.data[i]!
    }
    result.dispose()
  }
  const { correct, count } = await evaluation.run(parameters, batch(random))
  await step.close()
  await evaluation.close()
  return { losses, accuracy: Number(correct) / Number(count) }
}

function batch(random: RandomStream): Record<string, HostTensor> {
  const points = Float32Array.from({ length: 2 * batchSize }, () => random.uniform())
  const labels = Int32Array.from({ length: batchSize }, (_, row) => Number(points[2 * row + 1]! > points[2 * row]!))
  return {
    points: { shape: [batchSize, 2], dtype: 'float32', data: points },
    labels: { shape: [batchSize], dtype: 'int32', data: labels },
  }
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const engine = openEngine({
    choice: 'auto',
    directory: process.env.CLOISTER_ENGINE ?? engineDirectory(join(homedir(), '.cache/cloister')),
    threads: 1,
    onWarning: ({ message }) => process.stderr.write(`${message}\n`),
  })
  const { losses, accuracy } = await trainOwnModel(engine, 200)
  process.stdout.write(
    `${engine.kind}: loss ${losses[0]!.toFixed(3)} → ${losses.at(-1)!.toFixed(3)}, accuracy ${accuracy}\n`,
  )
  await engine.close()
}
