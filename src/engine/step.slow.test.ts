// SPDX-License-Identifier: Apache-2.0
/** A whole ResNet step, traced, against TensorFlow.js's own CPU backend: loss, metrics, every gradient, every statistic. */
import { expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../test/requirements.ts'
import { imageClassification } from '../models/image-classification.ts'
import type { Model } from '../models/model.ts'
import { cifarResNet } from '../models/resnet.ts'
import type { Engine, HostTensor } from './engine.ts'
import { createJavascriptEngine } from './javascript.ts'
import { engineDirectory } from './locate.ts'
import { compileEvaluation, compileTraining } from './step.ts'
import { createTensorflowEngine } from './tensorflow.ts'

const batchSize = 2
const augmentation = { padding: 2, flip: true, brightnessDelta: 63, contrast: [0.2, 1.8] } as const

const networks = {
  'version 1, 20 layers': () => cifarResNet({ depth: 20, version: 1, imageSize: 16 }),
  'version 2, 20 layers': () => cifarResNet({ depth: 20, version: 2, imageSize: 16 }),
}

requires('tensorflow-library').describe('a traced step equals that of TensorFlow.js', () => {
  const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)
  const images = Uint8Array.from({ length: batchSize * 3072 }, (_, index) => (index * 2654435761) >>> 24)
  const batch: Record<string, HostTensor> = {
    images: { shape: [batchSize, 32, 32, 3], dtype: 'uint8', data: images },
    labels: { shape: [batchSize], dtype: 'int32', data: Int32Array.of(9, 5) },
  }

  async function results(engine: Engine, model: Model, parameters: Map<string, HostTensor>) {
    const step = compileTraining(engine, model, batchSize)
    const { loss, metrics, gradients, statistics } = await step.run(parameters, batch, [11, 12])
    const sums = await compileEvaluation(engine, model, batchSize).run(parameters, batch)
    const arrays = [...gradients, ...statistics].map(([name, { data }]) => [name, Float64Array.from(data)] as const)
    await engine.close()
    const scalars: Record<string, number> = { loss, ...metrics, ...sums }
    return { scalars, arrays: new Map(arrays) }
  }

  test.each(Object.entries(networks))('%s', async (name, network) => {
    const model = imageClassification({ name, network: network(), augmentation })
    const initial = model.initialValues(5)
    const parameters = new Map(
      model.variables.map(({ name, shape }): [string, HostTensor] => {
        return [name, { shape, dtype: 'float32', data: initial.get(name)! }]
      }),
    )
    const ours = await results(createTensorflowEngine({ directory, threads: 2 }), model, parameters)
    const oracle = await results(createJavascriptEngine(), model, parameters)
    for (const [name, value] of Object.entries(oracle.scalars))
      expect(Math.abs(ours.scalars[name]! - value), name).toBeLessThanOrEqual(1e-4 * Math.max(1, Math.abs(value)))
    expect([...ours.arrays.keys()]).toEqual([...oracle.arrays.keys()])
    for (const [name, expected] of oracle.arrays) {
      const got = ours.arrays.get(name)!
      const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const distance = expected.reduce((most, value, index) => Math.max(most, Math.abs(value - got[index]!)), 0)
      expect(largest, name).toBeGreaterThan(0)
      expect(distance / largest, name).toBeLessThanOrEqual(1e-4)
    }
  })
})
