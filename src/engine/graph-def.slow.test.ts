// SPDX-License-Identifier: Apache-2.0
/** The GraphDef that is saved: real TensorFlow imports and runs it with the same numbers, TensorBoard lays it out. */
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cacheDirectory, python, requires } from '../../test/requirements.ts'
import { classification } from '../models/classification.ts'
import { fromLayersModel } from '../models/layers-model.ts'
import { cifarResNet } from '../models/resnet.ts'
import type { HostTensor, TypedArray } from './engine.ts'
import { engineDirectory } from './locate.ts'
import { compileTraining } from './step.ts'
import { createTensorflowEngine } from './tensorflow.ts'

const batchSize = 4

/** Feeds raw files, prints the loss and the sum of squares of each gradient. */
const runInTensorflow = `
import json, os, sys
os.environ['TF_ENABLE_ONEDNN_OPTS'] = '1'
import numpy as np, tensorflow as tf
directory = sys.argv[1]
feeds = json.load(open(directory + '/feeds.json'))
definition = tf.compat.v1.GraphDef()
definition.ParseFromString(open(directory + '/graph.pb', 'rb').read())
graph = tf.Graph()
with graph.as_default():
    tf.import_graph_def(definition, name='')
values = {name + ':0': np.fromfile(f"{directory}/{feed['file']}", feed['dtype']).reshape(feed['shape']) for name, feed in feeds.items()}
names = ['loss:0'] + [node.name + ':0' for node in definition.node if node.name.startswith('gradient/')]
with tf.compat.v1.Session(graph=graph) as session:
    results = session.run(names, values)
print(json.dumps({name[:-2]: float(np.sum(np.square(value, dtype=np.float64))) for name, value in zip(names, results)}))
`

/** What TensorBoard does with an event file's graph before it draws it. */
const layOutInTensorboard = `
import json, sys
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.graph import graph_util
from tensorboard.backend import process_graph
definition = GraphDef()
definition.ParseFromString(open(sys.argv[1] + '/graph.pb', 'rb').read())
process_graph.prepare_graph_for_ui(definition)
graph_util.merge_graph_defs([definition])
print(json.dumps([node.name for node in definition.node]))
`

requires('tensorflow-library', 'python-tensorflow', 'python-tensorboard').describe('GraphDef', () => {
  test('of a training step', async () => {
    const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)
    const engine = createTensorflowEngine({ directory, threads: 2 })
    const model = fromLayersModel(cifarResNet({ depth: 8, version: 2, imageSize: 16 }), {
      name: 'resnet8',
      batch: { images: { shape: [16, 16, 3], dtype: 'float32' }, labels: { shape: [], dtype: 'int32' } },
      objective: classification,
      inputs: ({ images }) => images!,
    })
    const step = compileTraining(engine, model, batchSize)
    const initial = model.initialValues(7)
    const parameters = new Map(
      model.variables.map(({ name, shape }): [string, HostTensor] => {
        return [name, { shape, dtype: 'float32', data: initial.get(name)! }]
      }),
    )
    const images = Float32Array.from({ length: batchSize * 768 }, (_, index) => Math.sin(index))
    const batch: Record<string, HostTensor> = {
      images: { shape: [batchSize, 16, 16, 3], dtype: 'float32', data: images },
      labels: { shape: [batchSize], dtype: 'int32', data: Int32Array.of(3, 1, 4, 1) },
    }
    const result = await step.run(parameters, batch, [3, 4])
    const squares = (values: TypedArray) => Array.from(values).reduce((sum, value) => sum + value ** 2, 0)
    const ours: Record<string, number> = Object.fromEntries([
      ['loss', result.loss ** 2],
      ...[...result.gradients].map(([name, { data }]) => [`gradient/${name}`, squares(data)]),
    ])

    const work = await mkdtemp(join(tmpdir(), 'cloister-graph-'))
    try {
      await writeFile(join(work, 'graph.pb'), step.graphDef()!)
      const inputs = new Map<string, HostTensor>([
        ...Object.entries(batch).map(([name, tensor]) => [`batch/${name}`, tensor] as const),
        ...[...parameters].map(([name, tensor]) => [`parameter/${name}`, tensor] as const),
        ['seed', { shape: [2], dtype: 'int32', data: Int32Array.of(3, 4) }],
      ])
      const feeds: Record<string, unknown> = {}
      for (const [name, { shape, dtype, data }] of inputs) {
        const file = `${Object.keys(feeds).length}.bin`
        feeds[name] = { file, shape, dtype }
        await writeFile(join(work, file), data)
      }
      await writeFile(join(work, 'feeds.json'), JSON.stringify(feeds))
      const run = (script: string): unknown =>
        JSON.parse(execFileSync(python, ['-c', script, work], { stdio: ['ignore', 'pipe', 'ignore'] }).toString())

      const theirs = run(runInTensorflow) as Record<string, number>
      expect(Object.keys(theirs).sort()).toEqual(Object.keys(ours).sort())
      for (const [name, value] of Object.entries(ours)) expect(theirs[name]! / value, name).toBeCloseTo(1, 4)

      const names = run(layOutInTensorboard) as string[]
      expect(names).toContain('train/forward/resnet8v2/conv2_1/conv1/Conv2D')
      expect(names).toContain('train/backward/resnet8v2/conv2_1/conv1/Conv2DBackpropFilter')
      expect(names).toContain('parameter/conv2_1/conv1/kernel')
    } finally {
      await rm(work, { recursive: true, force: true })
      result.dispose()
      await engine.close()
    }
  })
})
