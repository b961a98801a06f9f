// SPDX-License-Identifier: Apache-2.0
/** The CPU backend's random kernels against pip's TensorFlow: one generator, whoever runs it. */
import { spawnSync } from 'node:child_process'
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { python, requires } from '../../test/requirements.ts'
import { createRandom } from './random.ts'

const seedOf = (low: number, high: number) => createRandom(tf.tensor1d([low, high], 'int32'))
const numbers = (tensor: tf.Tensor) => Array.from(tensor.dataSync())

requires('python-tensorflow').describe('against real TensorFlow', () => {
  test('the same bits when uniform, the same numbers to a last place when normal', () => {
    const seeds = [
      [0, 0],
      [123, 456],
      [-1, 2 ** 31 - 1],
    ] as const
    const script = `
import json, sys
import numpy, tensorflow as tf
out = []
for low, high in json.load(sys.stdin):
    key = numpy.array([low, high], numpy.int32).view(numpy.uint64)
    for draw in (0, 1):
        counter = numpy.array([0, draw], numpy.uint64)
        for op in (tf.raw_ops.StatelessRandomUniformV2, tf.raw_ops.StatelessRandomNormalV2):
            out.append([float(v) for v in op(shape=[11], key=key, counter=counter, alg=1, dtype=tf.float32).numpy()])
json.dump(out, sys.stdout)`
    const run = spawnSync(python, ['-c', script], { input: JSON.stringify(seeds), encoding: 'utf8' })
    expect(run.status, run.stderr).toBe(0)
    const expected: number[][] = JSON.parse(run.stdout)
    const ours = seeds.flatMap(([low, high]) => {
      const [uniform, normal] = [seedOf(low, high), seedOf(low, high)]
      return [0, 1].flatMap(() => [numbers(uniform.uniform([11])), numbers(normal.normal([11]))])
    })
    for (const [i, values] of ours.entries()) {
      const tolerance = i % 2 === 0 ? 0 : 5e-7
      for (const [j, value] of values.entries())
        expect(Math.abs(value - expected[i]![j]!), `draw ${i}, number ${j}`).toBeLessThanOrEqual(tolerance)
    }
  })
})
