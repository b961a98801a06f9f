/** The image workload whole, on real images through the engine: it learns, and it goes on as fast as data is read. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cacheDirectory, requires, sharedDirectory } from '../../test/requirements.ts'
import { evaluationBatches, TrainingBatches } from '../data/batches.ts'
import { identifyImages, openHeldOut, openTraining } from '../data/locate.ts'
import { heldOutShard } from '../data/partition.ts'
import type { HostTensor } from '../engine/engine.ts'
import { compileEvaluation, compileTraining } from '../engine/step.ts'
import { createTensorflowEngine } from '../engine/tensorflow.ts'
import { imageClassification } from './image-classification.ts'
import { cifarResNet } from './resnet.ts'

requires('cifar10', 'tensorflow-library').describe('ResNet-20 on CIFAR-10', () => {
  test('learns in 120 steps, by its moving averages too', async () => {
    const directory = join(cacheDirectory, `engine/tensorflow-2.21.0-${process.platform}-${process.arch}`)
    const engine = createTensorflowEngine({ directory: process.env.CLOISTER_ENGINE ?? directory, threads: 2 })
    const network = cifarResNet({ depth: 20, version: 2, imageSize: 24 })
    const model = imageClassification({ name: 'resnet20', network, augmentation: { padding: 0, flip: true } })
    const training = compileTraining(engine, model, 128)
    const evaluation = compileEvaluation(engine, model, 500)
    const images = await identifyImages(join(sharedDirectory, 'data/cifar10'))
    const [examples, heldOut] = [await openTraining(images), await openHeldOut(images)]

    const values = model.initialValues(1)
    const parameters = new Map(
      model.variables.map(({ name, shape }): [string, HostTensor] => [
        name,
        { shape, dtype: 'float32', data: values.get(name)! },
      ]),
    )
    const velocity = new Map(Array.from(values, ([name, { length }]) => [name, new Float32Array(length)]))
    const losses: number[] = []
    const shard = heldOutShard(examples.examples, 0, 1)
    const batches = new TrainingBatches(examples, { shardOf: () => shard, batchSize: 128, seed: 1 })
    for (let position = 0; ; position++) {
      const batch = await batches.read({ shard: 0, position })
      const result = await training.run(parameters, batch, [1, losses.length])
      losses.push(result.loss)
      // Momentum 0.9; the rate falls to nothing, so that the moving averages catch up with the weights.
      const rate = 0.1 * (1 - losses.length / 120)
      for (const [name, gradient] of result.gradients) {
        const [value, speed] = [values.get(name)!, velocity.get(name)!]
        for (let index = 0; index < value.length; index++) {
          speed[index] = 0.9 * speed[index]! + gradient.data[index]!
          value[index]! -= rate * speed[index]!
        }
      }
      for (const [name, statistic] of result.statistics) values.get(name)!.set(statistic.data)
      result.dispose()
      if (losses.length === 120) break
    }
    const mean = (some: number[]) => some.reduce((sum, loss) => sum + loss, 0) / some.length
    expect(losses[0]).toBeGreaterThan(2)
    expect(mean(losses.slice(-20))).toBeLessThan(1.7)

    const sums = { lossSum: 0, correct: 0, count: 0 }
    // 2,001 images: the last batch holds one, and 499 rows that must not count.
    const part = { shard: heldOutShard(heldOut.examples, 0, 1).subarray(0, 2001), batchSize: 500 }
    for await (const batch of evaluationBatches(heldOut, part)) {
      const { lossSum, correct, count } = await evaluation.run(parameters, batch)
      sums.lossSum += Number(lossSum)
      sums.correct += Number(correct)
      sums.count += Number(count)
    }
    expect(sums.count).toBe(2001)
    expect(sums.correct / sums.count).toBeGreaterThan(0.36)
    expect(sums.lossSum / sums.count).toBeLessThan(1.8)
    await Promise.all([examples.close(), heldOut.close(), training.close(), evaluation.close()])
    await engine.close()
  })
})
