import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { classification } from './classification.ts'
import { fromLayersModel } from './layers-model.ts'
import type { Random } from './model.ts'

const none: Random = { uniform: () => expect.unreachable(), normal: () => expect.unreachable() }
const model = fromLayersModel(tf.sequential({ layers: [tf.layers.dense({ units: 3, inputShape: [2] })] }), {
  name: 'test',
  batch: { x: { shape: [2], dtype: 'float32' }, labels: { shape: [], dtype: 'int32' } },
  objective: classification,
})
const [kernel, bias] = model.variables.map(({ tensor }) => tensor)
kernel!.assign(
  tf.tensor2d([
    [1, 0, -1],
    [0, 2, 0],
  ]),
)
bias!.assign(tf.tensor1d([0, 0, 1]))
const rows = [
  [1, 0],
  [0, 1],
  [-2, 0],
  [0.5, 0.5],
]
const labels = [0, 2, 2, 1]
const logits = rows.map(([a, b]) => [a!, 2 * b!, 1 - a!])
const losses = logits.map((row, index) => Math.log(row.reduce((sum, z) => sum + Math.exp(z), 0)) - row[labels[index]!]!)

test('training: mean loss and accuracy', () => {
  const { loss, metrics } = model.train({ x: tf.tensor2d(rows), labels: tf.tensor1d(labels, 'int32') }, none)
  expect(loss.dataSync()[0]).toBeCloseTo(losses.reduce((sum, value) => sum + value, 0) / 4, 5)
  expect(metrics.accuracy!.dataSync()[0]).toBe(0.75)
})

test('evaluation: sums, in which padding rows do not count', () => {
  const sums = model.evaluate({
    x: tf.tensor2d([...rows, [0, 0], [9, 9]]),
    labels: tf.tensor1d([...labels, -1, -1], 'int32'),
  })
  expect(sums.lossSum!.dataSync()[0]).toBeCloseTo(
    losses.reduce((sum, value) => sum + value, 0),
    5,
  )
  expect([sums.correct!.dataSync()[0], sums.count!.dataSync()[0]]).toEqual([3, 4])
})
