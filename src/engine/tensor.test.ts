// SPDX-License-Identifier: Apache-2.0
/** Native memory: freed once, not before its last use, and not forgotten. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import * as tf from '@tensorflow/tfjs'
import { expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../test/requirements.ts'
import { engineDirectory } from './locate.ts'
import { liveTensorCount } from './tensor.ts'
import { createTensorflowEngine } from './tensorflow.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** Finalizers run in turns of the event loop after a collection. */
async function settle(until: () => boolean): Promise<void> {
  for (let turn = 0; turn < 100 && !until(); turn++) {
    collectGarbage()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

requires('tensorflow-library').describe('native tensors', () => {
  const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)
  const engine = createTensorflowEngine({ directory, threads: 1 })
  const spec = { shape: [256], dtype: 'float32' } as const
  const ones = new Float32Array(256).fill(1)
  const double = () => engine.compile({ name: 'double', inputs: { x: spec }, build: ({ x }) => ({ y: tf.mul(x!, 2) }) })

  test('disposing counts once, and reading afterwards is an error', () => {
    const before = liveTensorCount()
    const tensor = engine.tensor(spec, ones)
    expect(liveTensorCount()).toBe(before + 1)
    tensor.dispose()
    tensor.dispose()
    expect(liveTensorCount()).toBe(before)
    expect(() => tensor.data).toThrow(expect.objectContaining({ code: 'tensor-disposed' }))
  })

  test('a disposed tensor cannot be fed', async () => {
    const before = liveTensorCount()
    const program = double()
    const tensor = engine.tensor(spec, ones)
    tensor.dispose()
    await expect(program.run({ x: tensor })).rejects.toMatchObject({ code: 'tensor-disposed' })
    await program.close()
    expect(liveTensorCount()).toBe(before)
  })

  test('disposing in the middle of a run waits for the run', async () => {
    const before = liveTensorCount()
    const program = double()
    const tensor = engine.tensor(spec, ones)
    const running = program.run({ x: tensor })
    tensor.dispose()
    expect(liveTensorCount()).toBe(before + 1)
    const { y } = await running
    expect(new Set(y!.data)).toEqual(new Set([2]))
    y!.dispose()
    await program.close()
    expect(liveTensorCount()).toBe(before)
  })

  test('results of an aborted run are freed when it ends', async () => {
    const before = liveTensorCount()
    const program = double()
    const cancel = new AbortController()
    const running = program.run({ x: { ...spec, data: ones } }, { signal: cancel.signal })
    cancel.abort(new Error('stop'))
    await expect(running).rejects.toThrow('stop')
    await program.close()
    await settle(() => liveTensorCount() === before)
    expect(liveTensorCount()).toBe(before)
  })

  test('a tensor that nobody holds any more is freed by the garbage collector', async () => {
    const before = liveTensorCount()
    for (let count = 0; count < 10; count++) engine.tensor(spec, ones)
    await settle(() => liveTensorCount() === before)
    expect(liveTensorCount()).toBe(before)
  })

  test('a view alone keeps its memory', async () => {
    const before = liveTensorCount()
    let data: ArrayLike<number> | undefined = engine.tensor(spec, ones).data.subarray(3)
    for (let turn = 0; turn < 5; turn++) await settle(() => true)
    collectGarbage()
    expect(liveTensorCount()).toBe(before + 1)
    expect(data[252]).toBe(1)
    data = undefined
    await settle(() => liveTensorCount() === before)
    expect(liveTensorCount()).toBe(before)
  })
})
