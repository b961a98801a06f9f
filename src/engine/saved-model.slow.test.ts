// SPDX-License-Identifier: Apache-2.0
/** Exported models in real TensorFlow: loaded with `tf.saved_model.load`, called by signature, against our own predictions. */
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cacheDirectory, python, requires } from '../../test/requirements.ts'
import { dlrm } from '../models/dlrm.ts'
import { imageClassification } from '../models/image-classification.ts'
import type { Model } from '../models/model.ts'
import { RandomStream } from '../models/philox.ts'
import { cifarResNet } from '../models/resnet.ts'
import { encodeSavedModel } from '../storage/tensorflow-model.ts'
import type { HostTensor, TypedArray } from './engine.ts'
import { engineDirectory } from './locate.ts'
import { compilePrediction } from './step.ts'
import { createTensorflowEngine } from './tensorflow.ts'

const callInTensorflow = `
import json, os, sys
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import numpy as np, tensorflow as tf
directory = sys.argv[1]
feeds = json.load(open(directory + '/feeds.json'))
serve = tf.saved_model.load(directory).signatures['serving_default']
inputs = {name: tf.constant(np.fromfile(directory + '/' + name + '.raw', feed['dtype']).reshape(feed['shape'])) for name, feed in feeds.items()}
print(json.dumps({name: value.numpy().reshape(-1).tolist() for name, value in serve(**inputs).items()}))
`

const batchSize = 5
const random = new RandomStream(4, 'export')
const floats = (count: number, scale = 1) => Float32Array.from({ length: count }, () => scale * random.normal())

const rows = 3000
const cases: readonly { model: Model; tables: [string, HostTensor][]; feeds: Record<string, TypedArray> }[] = [
  {
    model: dlrm({ rows }),
    tables: [['embeddings', { shape: [rows, 16], dtype: 'float32', data: floats(rows * 16) }]],
    feeds: {
      dense: floats(batchSize * 13),
      ids: Int32Array.from({ length: batchSize * 26 }, () => random.below(rows)),
    },
  },
  {
    model: imageClassification({
      name: 'resnet',
      network: cifarResNet({ depth: 20, version: 2, imageSize: 24 }),
      augmentation: undefined,
    }),
    tables: [],
    feeds: { images: Uint8Array.from({ length: batchSize * 3072 }, () => random.below(256)) },
  },
]

requires('tensorflow-library', 'python-tensorflow').describe('SavedModel', () => {
  test.each(cases)('of $model.name: TensorFlow predicts what we predict', async ({ model, tables, feeds }) => {
    const engine = createTensorflowEngine({
      directory: process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory),
      threads: 1,
    })
    const initial = model.initialValues(6)
    const parameters = model.variables.map(({ name, shape, role }): [string, HostTensor] => {
      const data = initial.get(name)!
      // Not what batch normalisation starts with, which hides a mean and a variance that are swapped or left out.
      if (role === 'statistic') for (const [i, value] of data.entries()) data[i] = value + 0.1 * (i % 7)
      return [name, { shape, dtype: 'float32', data }]
    })
    const program = compilePrediction(engine, model, batchSize, {
      parameters: new Map(parameters),
      tables: new Map(tables),
    })
    const inputs = Object.entries(program.inputs).map(
      ([name, spec]) => [name, { ...spec, data: feeds[name]! }] as const,
    )
    const ours = await program.run(Object.fromEntries(inputs))
    const directory = await mkdtemp(join(tmpdir(), 'cloister-saved-model-'))
    try {
      const named = (tensors: Record<string, Pick<HostTensor, 'shape' | 'dtype'>>) =>
        new Map(Object.entries(tensors).map(([name, { shape, dtype }]) => [name, { name, shape, dtype }]))
      const file = encodeSavedModel({
        graph: program.graphDef()!,
        inputs: named(program.inputs),
        outputs: named(ours),
      })
      await writeFile(join(directory, 'saved_model.pb'), file)
      for (const [name, { data }] of inputs) await writeFile(join(directory, `${name}.raw`), data)
      await writeFile(join(directory, 'feeds.json'), JSON.stringify(program.inputs))
      const theirs = JSON.parse(execFileSync(python, ['-c', callInTensorflow, directory], { encoding: 'utf8' }))
      expect(Object.keys(theirs)).toEqual(Object.keys(ours))
      for (const [name, { data }] of Object.entries(ours)) {
        expect(new Set(data).size).toBeGreaterThan(batchSize - 1)
        expect(theirs[name]).toHaveLength(data.length)
        for (const [i, value] of data.entries()) expect(Math.abs(theirs[name][i] - value)).toBeLessThanOrEqual(1e-5)
      }
    } finally {
      await rm(directory, { recursive: true })
      await engine.close()
    }
  })
})
