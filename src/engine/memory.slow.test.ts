// SPDX-License-Identifier: Apache-2.0
/** Ten thousand training steps of a small model, memory flat: what leaks once a step would show by tens of megabytes. */
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../test/requirements.ts'
import { classification } from '../models/classification.ts'
import { fromLayersModel } from '../models/layers-model.ts'
import type { HostTensor } from './engine.ts'
import { engineDirectory } from './locate.ts'
import { compileTraining } from './step.ts'
import { liveTensorCount } from './tensor.ts'
import { createTensorflowEngine } from './tensorflow.ts'

const batchSize = 16
const pixels = { shape: [8, 8, 3], dtype: 'float32' } as const

requires('tensorflow-library').describe('memory', () => {
  test('is flat over 10,000 steps', async () => {
    const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)
    const engine = createTensorflowEngine({ directory, threads: 1 })
    const network = tf.sequential({
      layers: [
        tf.layers.conv2d({ inputShape: [8, 8, 3], filters: 8, kernelSize: 3 }),
        tf.layers.batchNormalization(),
        tf.layers.reLU(),
        tf.layers.dropout({ rate: 0.3 }),
        tf.layers.flatten(),
        tf.layers.dense({ units: 10 }),
      ],
    })
    const model = fromLayersModel(network, {
      name: 'small',
      batch: { images: pixels, labels: { shape: [], dtype: 'int32' } },
      objective: classification,
      inputs: ({ images }) => images!,
    })
    const step = compileTraining(engine, model, batchSize)
    const initial = model.initialValues(1)
    const parameters = new Map(
      model.variables.map(({ name, shape }) => [name, engine.tensor({ shape, dtype: 'float32' }, initial.get(name)!)]),
    )
    const images = Float32Array.from({ length: batchSize * 192 }, (_, index) => Math.sin(index))
    const labels = Int32Array.from({ length: batchSize }, (_, index) => index % 10)
    const batch: Record<string, HostTensor> = {
      images: { shape: [batchSize, 8, 8, 3], dtype: 'float32', data: images },
      labels: { shape: [batchSize], dtype: 'int32', data: labels },
    }
    const train = async (steps: number) => {
      for (let count = 0; count < steps; count++) {
        const { loss, gradients, dispose } = await step.run(parameters, batch, [1, count])
        expect(loss).toBeGreaterThan(0)
        for (const { data } of gradients.values()) expect(data.length).toBeGreaterThan(0)
        dispose()
      }
    }
    await train(1000)
    const before = { live: liveTensorCount(), tensors: tf.memory().numTensors, rss: process.memoryUsage.rss() }
    await train(10_000)
    expect(liveTensorCount()).toBe(before.live)
    expect(tf.memory().numTensors).toBe(before.tensors)
    // All gradients of one step are 12 KB: 10,000 forgotten steps would be 120 MB.
    expect(process.memoryUsage.rss() - before.rss).toBeLessThan(40e6)
    await step.close()
    for (const tensor of parameters.values()) tensor.dispose()
    await engine.close()
    expect(liveTensorCount()).toBe(0)
  })
})
