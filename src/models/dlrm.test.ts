// SPDX-License-Identifier: Apache-2.0
/** The architecture by its parameter counts, its step against a naive forward pass, and the sums that scores are made of. */
import { expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../test/requirements.ts'
import type { Engine, HostTensor } from '../engine/engine.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { engineDirectory } from '../engine/locate.ts'
import { compileEvaluation, compileTraining } from '../engine/step.ts'
import { createTensorflowEngine } from '../engine/tensorflow.ts'
import { dlrm, logitBins } from './dlrm.ts'
import { RandomStream } from './philox.ts'

const elements = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1)

test('parameter counts', () => {
  const count = (options: Parameters<typeof dlrm>[0]) =>
    dlrm(options).variables.reduce((sum, { shape }) => sum + elements(shape), 0)
  // Bottom 13-512-256-64-16, top 367-512-256-1, where 367 = 16 + 27 · 26 / 2; weights and biases.
  const bottom = 13 * 512 + 512 + 512 * 256 + 256 + 256 * 64 + 64 + 64 * 16 + 16
  const top = 367 * 512 + 512 + 512 * 256 + 256 + 256 + 1
  expect(count({ rows: 10 })).toBe(bottom + top)
  expect(count({ rows: 10 })).toBe(475_985)
  // The authors' Kaggle command (dlrm_s_criteo_kaggle.sh): 13-512-256-64-16 and 512-256-1: the same network.
  expect(count({ rows: 10, dense: 2, categorical: 3, embeddingWidth: 4, bottom: [5], top: [] })).toBe(
    2 * 5 + 5 + 5 * 4 + 4 + (4 + 6) * 1 + 1,
  )
  expect(dlrm({ rows: 33_762_577, embeddingWidth: 8 }).tables).toEqual([
    { name: 'embeddings', width: 8, rows: 33_762_577, field: 'ids', initial: { scale: 0.05 } },
  ])
})

test('initial values: of the paper’s variances, a function of the seed', () => {
  const model = dlrm({ rows: 10 })
  const values = model.initialValues(3)
  expect([...values.keys()]).toEqual(model.variables.map(({ name }) => name))
  const variance = (name: string) => values.get(name)!.reduce((sum, x) => sum + x * x, 0) / values.get(name)!.length
  // 187,904 numbers: the relative deviation of their variance is √(2/n) = 0.3 %; of 512, 6 %.
  expect(variance('top/0/kernel') / (2 / (367 + 512))).toBeCloseTo(1, 1.5)
  expect(Math.abs(variance('bottom/0/kernel') / (2 / (13 + 512)) - 1)).toBeLessThan(0.1)
  expect(Math.abs(variance('bottom/0/bias') * 512 - 1)).toBeLessThan(0.3)
  expect(model.initialValues(3)).toEqual(values)
  expect(model.initialValues(4).get('top/0/bias')).not.toEqual(values.get('top/0/bias'))
})

const batchSize = 6
const small = dlrm({ rows: 100, dense: 3, categorical: 4, embeddingWidth: 2, bottom: [5], top: [4] })

function sample(labels: readonly number[]) {
  const random = new RandomStream(8, 'dlrm')
  const floats = (shape: number[]): HostTensor & { data: Float32Array } => ({
    shape,
    dtype: 'float32',
    data: Float32Array.from({ length: elements(shape) }, () => random.normal()),
  })
  const parameters = new Map(small.variables.map(({ name, shape }) => [name, floats([...shape])]))
  const batch = {
    dense: floats([batchSize, 3]),
    ids: { shape: [batchSize, 4], dtype: 'int32', data: Int32Array.from({ length: 24 }, () => random.below(20)) },
    labels: { shape: [batchSize], dtype: 'int32', data: Int32Array.from(labels) },
    'rows/embeddings': floats([24, 2]),
  } as const
  return { parameters, batch }
}

/** The model in loops, from its definition. */
function naiveLogits({ parameters, batch }: ReturnType<typeof sample>): number[] {
  const layer = (name: string, x: number[], activated: boolean) => {
    const [kernel, bias] = [parameters.get(`${name}/kernel`)!.data, parameters.get(`${name}/bias`)!.data]
    return Array.from(bias, (offset, j) => {
      const sum = x.reduce((total, value, i) => total + value * kernel[i * bias.length + j]!, offset)
      return activated ? Math.max(0, sum) : sum
    })
  }
  return Array.from({ length: batchSize }, (_, example) => {
    const dense = [...batch.dense.data.slice(example * 3, example * 3 + 3)]
    const x = layer('bottom/1', layer('bottom/0', dense, true), true)
    const ids = [...batch.ids.data.slice(example * 4, example * 4 + 4)]
    const vectors = [x, ...ids.map((id) => [...batch['rows/embeddings'].data.slice(id * 2, id * 2 + 2)])]
    const dots = vectors.flatMap((a, i) => vectors.slice(0, i).map((b) => a[0]! * b[0]! + a[1]! * b[1]!))
    return layer('top/1', layer('top/0', [...x, ...dots], true), false)[0]!
  })
}

const logLoss = (logit: number, label: number) => Math.log1p(Math.exp(label === 1 ? -logit : logit))

contract('javascript', createJavascriptEngine)
requires('tensorflow-library').describe('with the library', () => {
  contract('tensorflow', () =>
    createTensorflowEngine({ directory: process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory), threads: 1 }),
  )
})

function contract(kind: string, create: () => Engine): void {
  test(`${kind}: loss and gradients`, async () => {
    const engine = create()
    const given = sample([1, 0, 0, 1, 1, 0])
    const step = compileTraining(engine, small, batchSize)
    const run = async () => {
      const result = await step.run(given.parameters, given.batch, [0, 0])
      const gradients = new Map([...result.gradients, ...result.rowGradients].map(([n, { data }]) => [n, data.slice()]))
      result.dispose()
      return { loss: result.loss, gradients }
    }
    const { loss, gradients } = await run()
    const expected = naiveLogits(given).reduce((sum, x, i) => sum + logLoss(x, given.batch.labels.data[i]!), 0)
    expect(loss).toBeCloseTo(expected / batchSize, 5)
    // By differences of the naive loss, in double precision: of the whole rows, and of every parameter.
    const nudged = [
      ...[...given.parameters].map(([name, tensor]) => [name, tensor.data] as const),
      ['embeddings', given.batch['rows/embeddings'].data] as const,
    ]
    for (const [name, data] of nudged) {
      const gradient = gradients.get(name)!
      for (const [i, value] of data.entries()) {
        const at = (moved: number) => {
          data[i] = moved
          const difference = data[i]! - value
          const logits = naiveLogits(given)
          data[i] = value
          const total = logits.reduce((sum, x, row) => sum + logLoss(x, given.batch.labels.data[row]!), 0)
          return [total / batchSize, difference] as const
        }
        const [[above, up], [below, down]] = [at(value + 1e-4), at(value - 1e-4)]
        expect(Math.abs(gradient[i]! - (above - below) / (up - down)), `${name}[${i}]`).toBeLessThan(2e-4)
      }
    }
    // Rows that no id names.
    const used = new Set(given.batch.ids.data)
    for (let row = 0; row < 24; row++)
      if (!used.has(row)) expect([...gradients.get('embeddings')!.slice(row * 2, row * 2 + 2)]).toEqual([0, 0])
    await engine.close()
  })

  test(`${kind}: sums of scores, without the rows that pad the batch`, async () => {
    const engine = create()
    const given = sample([1, 0, -1, 1, 0, -1])
    const evaluation = compileEvaluation(engine, small, batchSize)
    const sums = await evaluation.run(given.parameters, given.batch)
    const rows = naiveLogits(given)
      .map((logit, row) => ({ logit, label: given.batch.labels.data[row]! }))
      .filter(({ label }) => label >= 0)
    const total = (of: (row: { logit: number; label: number }) => number) => rows.reduce((sum, row) => sum + of(row), 0)
    expect(sums.count).toBe(4)
    expect(sums.labelSum).toBe(2)
    expect(sums.correct).toBe(total(({ logit, label }) => Number(logit > 0 === (label === 1))))
    expect(sums.logLossSum).toBeCloseTo(
      total(({ logit, label }) => logLoss(logit, label)),
      4,
    )
    expect(sums.predictionSum).toBeCloseTo(
      total(({ logit }) => 1 / (1 + Math.exp(-logit))),
      5,
    )
    for (const [name, wanted] of [
      ['clickLogits', 1],
      ['otherLogits', 0],
    ] as const) {
      const bins = new Float64Array(logitBins.count)
      for (const { logit, label } of rows)
        if (label === wanted) bins[Math.min(4095, Math.max(0, Math.floor((logit + 8) * 256)))]! += 1
      expect(sums[name]).toEqual(bins)
    }
    await engine.close()
  })
}
