// SPDX-License-Identifier: Apache-2.0
/** DLRM at its default sizes, written in TensorFlow's Python API: same weights and batch, same loss, gradients and scores. */
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cacheDirectory, python, requires } from '../../test/requirements.ts'
import { dlrm } from '../models/dlrm.ts'
import { RandomStream } from '../models/philox.ts'
import type { HostTensor } from './engine.ts'
import { engineDirectory } from './locate.ts'
import { compileTraining } from './step.ts'
import { createTensorflowEngine } from './tensorflow.ts'

/** Interactions as the authors' code takes them: of the whole square, the strict lower triangle. */
const inTensorflow = `
import json, os, sys
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import numpy as np, tensorflow as tf
directory = sys.argv[1]
spec = json.load(open(directory + '/spec.json'))
read = lambda i, kind: np.fromfile(f'{directory}/{i}.raw', kind['dtype']).reshape(kind['shape'])
values = {kind['name']: read(i, kind) for i, kind in enumerate(spec)}
trained = {name: tf.Variable(value) for name, value in values.items() if '/' in name or name == 'rows'}
def mlp(x, part, activations):
    for i, activation in enumerate(activations):
        x = activation(x @ trained[f'{part}/{i}/kernel'] + trained[f'{part}/{i}/bias'])
    return x
with tf.GradientTape() as tape:
    x = mlp(tf.constant(values['dense']), 'bottom', [tf.nn.relu] * 4)
    t = tf.concat([x[:, None, :], tf.gather(trained['rows'], values['ids'])], 1)
    i, j = np.tril_indices(27, -1)
    pairs = tf.gather(tf.reshape(tf.einsum('bik,bjk->bij', t, t), [-1, 729]), i * 27 + j, axis=1)
    logits = mlp(tf.concat([x, pairs], 1), 'top', [tf.nn.relu, tf.nn.relu, tf.identity])[:, 0]
    labels = tf.cast(values['labels'], tf.float32)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))
for name, gradient in zip(trained, tape.gradient(loss, list(trained.values()))):
    tf.convert_to_tensor(gradient).numpy().tofile(f"{directory}/{name.replace('/', '.')}.gradient")
print(json.dumps(float(loss)))
`

requires('tensorflow-library', 'python-tensorflow').describe('DLRM', () => {
  test('one step is that of TensorFlow', async () => {
    const batchSize = 64
    const model = dlrm({ rows: 1_000_000 })
    const random = new RandomStream(12, 'dlrm')
    const floats = (shape: number[], scale: number): HostTensor => {
      const elements = shape.reduce((product, size) => product * size, 1)
      return { shape, dtype: 'float32', data: Float32Array.from({ length: elements }, () => scale * random.normal()) }
    }
    const integers = (shape: number[], bound: number): HostTensor => {
      const elements = shape.reduce((product, size) => product * size, 1)
      return { shape, dtype: 'int32', data: Int32Array.from({ length: elements }, () => random.below(bound)) }
    }
    const initial = model.initialValues(9)
    const parameters = new Map(
      model.variables.map(({ name, shape }): [string, HostTensor] => [
        name,
        { shape, dtype: 'float32', data: initial.get(name)! },
      ]),
    )
    const batch = {
      dense: floats([batchSize, 13], 1),
      ids: integers([batchSize, 26], 900),
      labels: integers([batchSize], 2),
    }
    const rows = floats([batchSize * 26, 16], 0.3)
    const engine = createTensorflowEngine({
      directory: process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory),
      threads: 1,
    })
    const directory = await mkdtemp(join(tmpdir(), 'cloister-dlrm-'))
    try {
      const step = compileTraining(engine, model, batchSize)
      const ours = await step.run(parameters, { ...batch, 'rows/embeddings': rows }, [0, 0])
      const given = [...parameters, ...Object.entries(batch), ['rows', rows] as const]
      const spec = given.map(([name, { shape, dtype }]) => ({ name, shape, dtype }))
      await writeFile(join(directory, 'spec.json'), JSON.stringify(spec))
      for (const [i, [, { data }]] of given.entries()) await writeFile(join(directory, `${i}.raw`), data)
      const loss = Number(execFileSync(python, ['-c', inTensorflow, directory], { encoding: 'utf8' }))
      expect(Math.abs(ours.loss - loss)).toBeLessThanOrEqual(1e-5)
      const gradients = [...ours.gradients, ['rows', ours.rowGradients.get('embeddings')!] as const]
      expect(gradients).toHaveLength(15)
      for (const [name, { data }] of gradients) {
        const bytes = await readFile(join(directory, `${name.replaceAll('/', '.')}.gradient`))
        const theirs = new Float32Array(new Uint8Array(bytes).buffer)
        expect(theirs.length).toBe(data.length)
        const largest = theirs.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
        const distance = theirs.reduce((most, value, i) => Math.max(most, Math.abs(value - data[i]!)), 0)
        // Far above the tolerance, so that it means something.
        expect(largest, name).toBeGreaterThan(1e-3)
        expect(distance, name).toBeLessThanOrEqual(1e-5 * Math.max(1, largest))
      }
      ours.dispose()
    } finally {
      await rm(directory, { recursive: true })
      await engine.close()
    }
  })
})
