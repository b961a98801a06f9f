// SPDX-License-Identifier: Apache-2.0
/** Any layers model trains on both engines: each common layer alone, its loss, gradients and statistics compared. */
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { engines, Sample } from '../../test/lowerings/differential.ts'
import { joiningLayers, type LayerCase, layerCases } from '../../test/lowerings/layers.ts'
import { requires } from '../../test/requirements.ts'
import { fromLayersModel, type Objective } from '../models/layers-model.ts'
import type { Model } from '../models/model.ts'
import type { HostTensor } from './engine.ts'
import { compileEvaluation, compileTraining } from './step.ts'

const batchSize = 4

/** A loss to which no two outputs contribute alike. */
function loss(output: tf.Tensor): tf.Scalar {
  const weights = tf.sin(tf.range(0, output.size).mul(1.7).add(1)).reshape(output.shape)
  return output.square().add(output).mul(weights).sum() as tf.Scalar
}

const objective: Objective = {
  train: (output) => ({ loss: loss(output), metrics: {} }),
  evaluate: (output) => ({ loss: loss(output) }),
}

function networkOf({ input, layers }: LayerCase): tf.LayersModel {
  const symbol = tf.input({ shape: [...input.shape], dtype: input.dtype as 'float32' })
  const output = layers().reduce((tensor, layer) => layer.apply(tensor) as tf.SymbolicTensor, symbol)
  return tf.model({ inputs: symbol, outputs: output })
}

/** The layer over two branches. */
function joinOf(layer: tf.layers.Layer): tf.LayersModel {
  const symbol = tf.input({ shape: [6] })
  const branches = [1, 2].map(() => tf.layers.dense({ units: 4 }).apply(symbol) as tf.SymbolicTensor)
  return tf.model({ inputs: symbol, outputs: layer.apply(branches) as tf.SymbolicTensor })
}

async function expectSameTraining(network: tf.LayersModel, input: LayerCase['input']): Promise<void> {
  const model = fromLayersModel(network, { name: 'layers', batch: { x: input }, objective })
  const sample = new Sample(network.layers.length)
  const shape = [batchSize, ...input.shape]
  const x = input.dtype === 'int32' ? sample.integers(shape, 0, 6) : sample.floats(shape)
  const parameters = new Map(model.variables.map(({ name, shape, role }) => [name, parameter(sample, shape, role)]))
  const [actual, expected] = await Promise.all(engines().map((engine) => run(engine, model, parameters, x)))
  expect([...actual!.keys()]).toEqual([...expected!.keys()])
  for (const [name, values] of expected!) {
    // Relative to the greatest: sums of many terms cancel in single elements, before a normalisation in all of them.
    const scale = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0.1)
    values.forEach((value, i) => {
      const difference = Math.abs(actual!.get(name)![i]! - value)
      expect(difference, `${name}[${i}]: ${actual!.get(name)![i]}, not ${value}`).toBeLessThanOrEqual(1e-4 * scale)
    })
  }
}

function parameter(sample: Sample, shape: readonly number[], role: Model['variables'][0]['role']): HostTensor {
  // Moving variances must be positive.
  return role === 'statistic' ? sample.floats(shape, 0.5, 1.5) : sample.floats(shape, -0.8, 0.8)
}

async function run(
  engine: ReturnType<typeof engines>[0],
  model: Model,
  parameters: ReadonlyMap<string, HostTensor>,
  x: HostTensor,
): Promise<Map<string, number[]>> {
  const training = compileTraining(engine, model, batchSize)
  const evaluation = compileEvaluation(engine, model, batchSize)
  const step = await training.run(parameters, { x }, [3, -4])
  const results = new Map([['loss', [step.loss]]])
  for (const [name, { data }] of step.gradients) results.set(`gradient ${name}`, Array.from(data))
  for (const [name, { data }] of step.statistics) results.set(`statistic ${name}`, Array.from(data))
  for (const [name, sum] of Object.entries(await evaluation.run(parameters, { x })))
    results.set(`sum ${name}`, [Number(sum)])
  step.dispose()
  await Promise.all([training.close(), evaluation.close()])
  return results
}

requires('tensorflow-library').describe('a layers model gives the same on both engines', () => {
  test.each(layerCases.map((each) => [each.name, each] as const))('%s', (_, each) =>
    expectSameTraining(networkOf(each), each.input),
  )

  test.each(Object.entries(joiningLayers))('%s of two branches', (_, create) =>
    expectSameTraining(joinOf(create()), { shape: [6], dtype: 'float32' }),
  )
})
