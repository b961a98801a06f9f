// SPDX-License-Identifier: Apache-2.0
/** What tracing refuses and why, and that it leaves nothing behind. What it computes is in engine.test.ts and the lowerings' tests. */
import * as tf from '@tensorflow/tfjs'
import { afterAll, afterEach, expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../test/requirements.ts'
import type { ProgramDefinition } from './engine.ts'
import { Graph } from './graph.ts'
import { loadLibrary } from './library.ts'
import { engineDirectory } from './locate.ts'
import type { Lowering } from './lowering.ts'
import { lowerings } from './lowerings/table.ts'
import { createTensorflowEngine } from './tensorflow.ts'

requires('tensorflow-library').describe('recorder', () => {
  const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)
  const engine = createTensorflowEngine({ directory, threads: 2 })
  const x = { shape: [2], dtype: 'float32', data: Float32Array.of(3, -4) } as const
  const trace = (build: ProgramDefinition['build'], name = 'sample') => engine.compile({ name, inputs: { x }, build })
  const refusal = (build: ProgramDefinition['build']): unknown => {
    try {
      trace(build)
    } catch (thrown) {
      return thrown
    }
    return expect.unreachable('was traced')
  }

  const tensors = tf.memory().numTensors
  afterEach(() => {
    expect(tf.memory().numTensors).toBe(tensors)
  })
  afterAll(() => engine.close())

  test.each<[string, (x: tf.Tensor) => unknown]>([
    ['dataSync', (x) => x.dataSync()],
    ['arraySync', (x) => tf.add(x, 1).arraySync()],
    ['bufferSync', (x) => x.bufferSync()],
    ['print', (x) => x.print()],
    ['a gradient', (x) => tf.grad((x) => tf.mul(x, x.dataSync()[0]!))(x)],
  ])('a value read by %s is an explained error', (_, read) => {
    const thrown = refusal(({ x }) => {
      read(x!)
      return { x: x! }
    })
    expect(thrown).toMatchObject({ code: 'trace-read', message: expect.stringContaining("'sample'") })
  })

  test('a value read asynchronously rejects, and does not hang', async () => {
    let reading: Promise<unknown> | undefined
    trace(({ x }) => {
      reading = x!.data()
      reading.catch(() => {})
      return { x: x! }
    })
    await expect(reading).rejects.toMatchObject({ code: 'trace-read' })
  })

  test('a tensor that outlives its trace says so', () => {
    let escaped: tf.Tensor | undefined
    trace(({ x }) => {
      escaped = tf.keep(tf.neg(x!))
      return { x: x! }
    })
    expect(() => escaped!.dataSync()).toThrow(expect.objectContaining({ code: 'trace-read' }))
    escaped!.dispose()
  })

  test('what JavaScript itself put in can be read', async () => {
    const program = trace(({ x }) => ({ y: tf.mul(x!, tf.scalar(5).dataSync()[0]!) }))
    const { y } = await program.run({ x })
    expect(y!.data).toEqual(Float32Array.of(15, -20))
    y!.dispose()
  })

  test('a kernel that cannot be traced fails while tracing, by its name and that of the program', () => {
    tf.registerKernel({ kernelName: 'NotLowered', backendName: 'cpu', kernelFunc: () => expect.unreachable() })
    const thrown = refusal(({ x }) => ({ y: tf.engine().runKernel('NotLowered', { x: x! }) as tf.Tensor }))
    tf.unregisterKernel('NotLowered', 'cpu')
    expect(thrown).toMatchObject({
      code: 'kernel-unsupported',
      message: expect.stringMatching(/'sample'.*'NotLowered'/),
      hint: expect.stringContaining('--engine javascript'),
    })
  })

  test('so does one that nobody knows', () => {
    const thrown = refusal(({ x }) => ({ y: tf.engine().runKernel('Unheard', { x: x! }) as tf.Tensor }))
    expect(thrown).toMatchObject({ code: 'trace-failed', message: expect.stringMatching(/'sample'.*Unheard/) })
  })

  test.each<[string, () => tf.Tensor]>([
    ['randomUniform', () => tf.randomUniform([2])],
    ['randomNormal', () => tf.randomNormal([2])],
    ['truncatedNormal', () => tf.truncatedNormal([2])],
    ['randomGamma', () => tf.randomGamma([2], 1)],
    ['rand', () => tf.rand([2], Math.random)],
    ['dropout', () => tf.dropout([1, 2], 0.5)],
  ])('randomness that would be frozen is refused: %s', (_, draw) => {
    expect(refusal(() => ({ y: draw() }))).toMatchObject({ code: 'trace-random' })
  })

  test('the error of the program itself keeps its cause', () => {
    const cause = new RangeError('of the model')
    const thrown = refusal(() => {
      throw cause
    })
    expect(thrown).toMatchObject({ code: 'trace-failed', message: expect.stringContaining('of the model'), cause })
  })

  test('shapes that do not fit are an error of the trace', () => {
    expect(refusal(({ x }) => ({ y: tf.add(x!, tf.zeros([3])) }))).toMatchObject({ code: 'trace-failed' })
  })

  test('a failure in the middle of a gradient releases what was saved', () => {
    const failing = (x: tf.Tensor): tf.Tensor => {
      tf.exp(tf.square(x))
      throw new Error('half way')
    }
    expect(refusal(({ x }) => ({ y: tf.grad(failing)(x!) }))).toMatchObject({ code: 'trace-failed' })
  })

  test('tensors of other backends become constants and stay where they were', async () => {
    await tf.setBackend('cpu')
    const captured = tf.tensor1d([10, 20])
    const program = trace(({ x }) => ({ y: tf.add(tf.mul(x!, captured), captured) }))
    expect([...captured.dataSync()]).toEqual([10, 20])
    captured.dispose()
    const { y } = await program.run({ x })
    expect(y!.data).toEqual(Float32Array.of(40, -60))
    y!.dispose()
  })

  test('a variable that is no input is refused rather than frozen', () => {
    const variable = tf.tidy(() => tf.variable(tf.tensor1d([1, 2]), true, 'recorder-test-read'))
    const thrown = refusal(({ x }) => ({ y: tf.add(x!, variable) }))
    expect(thrown).toMatchObject({ code: 'trace-variable', message: expect.stringContaining('recorder-test-read') })
    expect([...variable.dataSync()]).toEqual([1, 2])
    variable.dispose()
  })

  test('a variable assigned to in a trace is reported', () => {
    const variable = tf.tidy(() => tf.variable(tf.tensor1d([1, 2]), true, 'recorder-test-assigned'))
    const thrown = refusal(({ x }) => {
      variable.assign(x as tf.Tensor1D)
      return { y: x! }
    })
    expect(thrown).toMatchObject({ code: 'trace-variable', message: expect.stringContaining('recorder-test-assigned') })
    variable.dispose()
  })

  test('two engines in one process', async () => {
    const other = createTensorflowEngine({ directory, threads: 1 })
    const programs = [engine, other].map((each, index) =>
      each.compile({ name: `program${index}`, inputs: { x }, build: ({ x }) => ({ y: tf.mul(x!, index + 2) }) }),
    )
    const mine = engine.tensor(x, x.data)
    const results = await Promise.all(programs.map((program) => program.run({ x: mine })))
    expect(results.map(({ y }) => [...y!.data])).toEqual([
      [6, -8],
      [9, -12],
    ])
    await other.close()
    for (const { y } of results) y!.dispose()
    mine.dispose()
  })

  test('another library in the same process is refused', () => {
    expect(() => loadLibrary('/elsewhere')).toThrow(expect.objectContaining({ code: 'engine-conflict' }))
  })

  test('a graph of a closed program is refused', async () => {
    const program = trace(({ x }) => ({ y: x! }))
    expect(program.graphDef()?.length).toBeGreaterThan(0)
    await program.close()
    expect(() => program.graphDef()).toThrow(expect.objectContaining({ code: 'program-closed' }))
  })

  test('nodes are named after program, scope and operation', () => {
    const program = trace(({ x }) => {
      const loss = (x: tf.Tensor) => tf.tidy('block 1', () => tf.sum(tf.tidy('inner', () => tf.exp(x)) as tf.Tensor))
      return { 'gradient/x': tf.grad(loss)(x!) }
    }, 'named')
    const names = Buffer.from(program.graphDef()!).toString('latin1')
    expect(names).toContain('named/forward/block_1/inner/Exp')
    expect(names).toContain('named/backward/block_1/')
    expect(names).toContain('gradient/x')
  })

  test('a result whose shape depends on values is refused', () => {
    const table = lowerings as Map<string, Lowering>
    table.set('Unforeseeable', (graph, { x }) => {
      const found = graph.add('Where', [graph.add('Cast', [x!], { DstT: { type: 'bool' } })[0]!])
      return graph.add('Cast', found, { DstT: { type: 'int32' } })[0]!
    })
    const thrown = refusal(({ x }) => ({ y: tf.engine().runKernel('Unforeseeable', { x: x! }) as tf.Tensor }))
    table.delete('Unforeseeable')
    expect(thrown).toMatchObject({ code: 'trace-failed', message: expect.stringContaining('[-1,1]') })
  })

  test('what TensorFlow refuses is refused with its reason', () => {
    const graph = new Graph(loadLibrary(directory))
    const a = graph.placeholder('a', [2, 3], 'float32')
    const refused = (reason: string) =>
      expect.objectContaining({ code: 'trace-failed', message: expect.stringContaining(reason) })
    expect(() => graph.add('NoSuchOperation', [])).toThrow(refused('NoSuchOperation'))
    expect(() => graph.add('MatMul', [a, a])).toThrow(refused('Dimensions must be equal'))
    expect(() => graph.add('AddV2', [a])).toThrow(refused('AddV2'))
    expect(graph.add('Square', [a])[0]).toMatchObject({ shape: [2, 3], dtype: 'float32' })
    graph.delete()
  })

  test('constants: equal small ones are shared, large uniform ones are not written out', () => {
    const graph = new Graph(loadLibrary(directory))
    const zero = graph.constant([0], [], 'float32')
    expect(graph.constant([0], [], 'float32')).toBe(zero)
    expect(graph.constant([-0], [], 'float32')).not.toBe(zero)
    expect(graph.constant([0], [1], 'float32')).not.toBe(zero)
    expect(graph.constant([0], [], 'int32')).not.toBe(zero)
    const before = graph.toGraphDef().length
    expect(graph.constant(new Float32Array(10_000).fill(2), [100, 100], 'float32').shape).toEqual([100, 100])
    expect(graph.toGraphDef().length - before).toBeLessThan(1000)
    graph.delete()
  })
})
