// SPDX-License-Identifier: Apache-2.0
/** The contract of an engine, held by both. What only the traced engine promises is in recorder.test.ts. */
import * as tf from '@tensorflow/tfjs'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../test/requirements.ts'
import { fromBfloat16, toBfloat16 } from '../models/bfloat16.ts'
import { RandomStream } from '../models/philox.ts'
import type { Engine, HostTensor, ProgramDefinition, TypedArray } from './engine.ts'
import { createJavascriptEngine } from './javascript.ts'
import { engineDirectory } from './locate.ts'
import { liveTensorCount } from './tensor.ts'
import { createTensorflowEngine } from './tensorflow.ts'

const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)

const float32 = (shape: number[], ...values: number[]): HostTensor => ({
  shape,
  dtype: 'float32',
  data: Float32Array.from(values),
})

/** Every element type in, truth values and integers out. */
const mixed: ProgramDefinition = {
  name: 'mixed',
  inputs: {
    x: { shape: [2, 2], dtype: 'float32' },
    n: { shape: [2], dtype: 'int32' },
    bytes: { shape: [2], dtype: 'uint8' },
  },
  build: ({ x, n, bytes }) => ({
    product: tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D, false, true),
    positive: tf.greater(x!, 0),
    sum: tf.add(n!, bytes!),
    same: x!,
    constant: tf.tensor1d([1.5, -2]),
  }),
}
const mixedInputs: Record<string, HostTensor> = {
  x: float32([2, 2], 1, -2, 3, 4),
  n: { shape: [2], dtype: 'int32', data: Int32Array.of(-7, 2_000_000_000) },
  bytes: { shape: [2], dtype: 'uint8', data: Uint8Array.of(0, 255) },
}

contract('javascript', createJavascriptEngine)
requires('tensorflow-library').describe('with the library', () => {
  contract('tensorflow', () => createTensorflowEngine({ directory, threads: 2 }))
})

function contract(kind: Engine['kind'], create: () => Engine): void {
  describe(`${kind} engine`, () => {
    const engine = create()
    const live = liveTensorCount()
    const tensors = tf.memory().numTensors
    afterAll(async () => {
      await engine.close()
      expect(liveTensorCount(), 'native tensors left').toBe(live)
      expect(tf.memory().numTensors, 'TensorFlow.js tensors left').toBe(tensors)
    })

    async function values(definition: ProgramDefinition, inputs: Record<string, HostTensor>, outputs?: string[]) {
      const program = engine.compile(definition)
      try {
        const results = await program.run(inputs, outputs === undefined ? {} : { outputs })
        const copies = Object.entries(results).map(([name, { shape, dtype, data }]) => {
          return [name, { shape: [...shape], dtype, data: data.slice() }] as const
        })
        for (const tensor of Object.values(results)) tensor.dispose()
        return Object.fromEntries(copies)
      } finally {
        await program.close()
      }
    }

    test('says what it is', () => {
      expect(engine.kind).toBe(kind)
      expect(engine.description).toMatch(/TensorFlow/)
    })

    test('runs a program over every element type', async () => {
      expect(await values(mixed, mixedInputs)).toEqual({
        product: float32([2, 2], 5, -5, -5, 25),
        positive: { shape: [2, 2], dtype: 'int32', data: Int32Array.of(1, 0, 1, 1) },
        sum: { shape: [2], dtype: 'int32', data: Int32Array.of(-7, 2_000_000_255) },
        same: mixedInputs.x,
        constant: float32([2], 1.5, -2),
      })
    })

    test('computes only the outputs that are asked for', async () => {
      expect(Object.keys(await values(mixed, mixedInputs, ['sum', 'product'])).sort()).toEqual(['product', 'sum'])
    })

    test('differentiates', async () => {
      const inputs = { x: float32([2, 3], 1, 2, 3, 4, 5, -6), w: float32([3, 1], 0.5, -1, 2) }
      const definition: ProgramDefinition = {
        name: 'gradients',
        inputs,
        build: ({ x, w }) => {
          const loss = (x: tf.Tensor, w: tf.Tensor) => tf.sum(tf.square(tf.matMul(x as tf.Tensor2D, w as tf.Tensor2D)))
          const [dx, dw] = tf.grads(loss)([x!, w!])
          return { dx: dx!, dw: dw! }
        },
      }
      // y = (4.5, -15); dx = 2 y wᵀ; dw = 2 xᵀ y
      expect(await values(definition, inputs)).toEqual({
        dx: float32([2, 3], 4.5, -9, 18, -15, 30, -60),
        dw: float32([3, 1], -111, -132, 207),
      })
    })

    test('takes its own tensors as inputs, several times, and does not consume them', async () => {
      const program = engine.compile({
        name: 'twice',
        inputs: { a: { shape: [3], dtype: 'float32' }, b: { shape: [3], dtype: 'float32' } },
        build: ({ a, b }) => ({ sum: tf.add(a!, tf.mul(b!, 2)) }),
      })
      const a = engine.tensor({ shape: [3], dtype: 'float32' }, Float32Array.of(1, 2, 3))
      for (let turn = 0; turn < 3; turn++) {
        const { sum } = await program.run({ a, b: a })
        expect(sum!.data).toEqual(Float32Array.of(3, 6, 9))
        sum!.dispose()
      }
      expect(a.data).toEqual(Float32Array.of(1, 2, 3))
      a.dispose()
    })

    test('feeds the outputs of one program to another', async () => {
      const program = engine.compile({
        name: 'double',
        inputs: { x: { shape: [2], dtype: 'float32' } },
        build: ({ x }) => ({ x: tf.mul(x!, 2) }),
      })
      let state = engine.tensor({ shape: [2], dtype: 'float32' }, Float32Array.of(1, 3))
      for (let turn = 0; turn < 5; turn++) {
        const { x } = await program.run({ x: state })
        state.dispose()
        state = x!
      }
      expect(state.data).toEqual(Float32Array.of(32, 96))
      state.dispose()
    })

    test('runs of one program may overlap', async () => {
      const program = engine.compile({
        name: 'square',
        inputs: { x: { shape: [64, 64], dtype: 'float32' } },
        build: ({ x }) => ({ y: tf.matMul(x as tf.Tensor2D, x as tf.Tensor2D) }),
      })
      const runs = Array.from({ length: 8 }, async (_, turn) => {
        const { y } = await program.run({ x: float32([64, 64], ...Array(4096).fill(turn)) })
        expect(new Set(y!.data)).toEqual(new Set([64 * turn * turn]))
        y!.dispose()
      })
      await Promise.all(runs)
    })

    test('empty tensors and scalars', async () => {
      const inputs = { none: float32([0, 3]), one: float32([], 7) }
      const build: ProgramDefinition['build'] = ({ none, one }) => ({ none: tf.add(none!, one!), one: tf.neg(one!) })
      expect(await values({ name: 'sizes', inputs, build }, inputs)).toEqual({
        none: float32([0, 3]),
        one: float32([], -7),
      })
    })

    test('special values come through bit for bit', async () => {
      const special = [NaN, Infinity, -Infinity, -0, 2 ** -149, 3.4028234663852886e38]
      const inputs = { x: float32([6], ...special) }
      const { y } = await values({ name: 'special', inputs, build: ({ x }) => ({ y: x! }) }, inputs)
      expect([...y!.data]).toEqual(special)
    })

    test('bfloat16 comes in as float32 and goes out rounded to the nearest', async () => {
      const x = { shape: [3], dtype: 'bfloat16', data: toBfloat16(Float32Array.of(1, -0.15625, 3e38)) } as const
      const definition: ProgramDefinition = {
        name: 'third',
        inputs: { x },
        build: ({ x }) => ({ whole: tf.div(x!, 3), half: tf.div(x!, 3), flag: tf.greater(x!, 0) }),
        rounded: new Set(['half']),
      }
      const { whole, half, flag } = await values(definition, { x })
      expect(whole).toMatchObject({ shape: [3], dtype: 'float32' })
      expect([...whole!.data].map((value) => value * 3)[1]).toBeCloseTo(-0.15625, 6)
      expect(half).toEqual({ shape: [3], dtype: 'bfloat16', data: toBfloat16(whole!.data as Float32Array) })
      expect(flag).toEqual({ shape: [3], dtype: 'int32', data: Int32Array.of(1, 0, 1) })
    })

    test('bfloat16: every pattern of normal numbers, ties and infinities is rounded as toBfloat16 does', async () => {
      const random = new RandomStream(1, 'patterns')
      const patterns = Uint32Array.from({ length: 1 << 15 }, (_, index) => {
        const lower = index % 4 === 0 ? 0x8000 : Math.floor(random.uniform() * 2 ** 16)
        return ((Math.floor(random.uniform() * 2 ** 16) << 16) | lower) >>> 0
      }).filter((bits) => (bits & 0x7fff_ffff) <= 0x7f80_0000 && (bits & 0x7f80_0000) !== 0)
      const data = new Float32Array(patterns.buffer)
      const x = { shape: [data.length], dtype: 'float32', data } as const
      const definition = { name: 'round', inputs: { x }, build: ({ x }: { x?: tf.Tensor }) => ({ y: x! }) }
      const { y } = await values({ ...definition, rounded: new Set(['y']) }, { x })
      expect(y!.data).toEqual(toBfloat16(data))
      const back = { name: 'widen', inputs: { y: y! }, build: ({ y }: { y?: tf.Tensor }) => ({ x: y! }) }
      expect((await values(back, { y: y! })).x!.data).toEqual(fromBfloat16(y!.data as Uint16Array))
    })

    test('bfloat16: NaN stays one', async () => {
      const x = float32([2], Number.NaN, 1)
      const { y } = await values(
        { name: 'nan', inputs: { x }, build: ({ x }) => ({ y: x! }), rounded: new Set(['y']) },
        { x },
      )
      expect([...fromBfloat16(y!.data as Uint16Array)]).toEqual([Number.NaN, 1])
    })

    describe('tensors', () => {
      test('are zero unless filled, whatever their shape', () => {
        const shapes = fc.array(fc.nat(4), { maxLength: 4 })
        fc.assert(
          fc.property(shapes, fc.constantFrom('float32', 'bfloat16', 'int32', 'uint8'), (shape, dtype) => {
            const tensor = engine.tensor({ shape, dtype })
            expect(tensor.data.length).toBe(shape.reduce((a, b) => a * b, 1))
            expect(tensor.data.every((value) => value === 0)).toBe(true)
            tensor.dispose()
            tensor.dispose()
          }),
          { seed: 1, numRuns: 50 },
        )
      })

      test('copy what they are filled from', () => {
        const data = Int32Array.of(1, 2)
        const tensor = engine.tensor({ shape: [2], dtype: 'int32' }, data)
        data[0] = 9
        expect(tensor.data).toEqual(Int32Array.of(1, 2))
        tensor.dispose()
      })

      test.each<[string, number[], TypedArray]>([
        ['too short', [3], new Float32Array(2)],
        ['too long', [3], new Float32Array(4)],
        ['another element type', [2], new Int32Array(2)],
        ['negative', [-1], new Float32Array(0)],
        ['fractional', [1.5], new Float32Array(1)],
        ['not a number', [NaN], new Float32Array(0)],
        ['no array', [1], 'x' as unknown as TypedArray],
      ])('refused: %s', (_, shape, data) => {
        expect(() => engine.tensor({ shape, dtype: 'float32' }, data)).toThrow(
          expect.objectContaining({ code: 'tensor-size' }),
        )
      })
    })

    describe('inputs refused before they are read', () => {
      const program = engine.compile(mixed)
      test.each<[string, Record<string, unknown>]>([
        ['missing', { n: undefined }],
        ['unknown', { other: mixedInputs.x }],
        ['inherited', { x: undefined, __proto__: mixedInputs }],
        ['another rank', { x: float32([4], 1, 2, 3, 4) }],
        ['another size', { x: float32([2, 3], 1, 2, 3, 4, 5, 6) }],
        ['another element type', { x: { ...mixedInputs.x, dtype: 'int32' } }],
        ['another array type', { x: { ...mixedInputs.x, data: new Int32Array(4) } }],
        ['halves', { x: { ...mixedInputs.x, dtype: 'bfloat16', data: new Uint16Array(4) } }],
        ['wider elements', { x: { ...mixedInputs.x, data: new Float64Array(4) } }],
        ['too little data', { x: float32([2, 2], 1) }],
        ['too much data', { x: float32([2, 2], 1, 2, 3, 4, 5) }],
        ['no data', { x: { shape: [2, 2], dtype: 'float32' } }],
      ])('%s', async (_, change) => {
        const inputs = Object.entries({ ...mixedInputs, ...change }).filter(([, value]) => value !== undefined)
        const running = program.run(Object.fromEntries(inputs) as Record<string, HostTensor>)
        await expect(running).rejects.toMatchObject({
          code: 'program-input',
          message: expect.stringContaining("'mixed'"),
        })
      })

      test('an output that does not exist', async () => {
        await expect(program.run(mixedInputs, { outputs: ['product', 'nothing'] })).rejects.toMatchObject({
          code: 'program-output',
        })
      })
    })

    describe('cancellation', () => {
      test('before the run: nothing runs', async () => {
        const program = engine.compile(mixed)
        const reason = new Error('stop')
        await expect(program.run(mixedInputs, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
      })

      test('in the middle: rejects with the reason, and the engine goes on', async () => {
        const program = engine.compile(mixed)
        const cancel = new AbortController()
        const running = program.run(mixedInputs, { signal: cancel.signal })
        const reason = new Error('stop')
        cancel.abort(reason)
        await expect(running).rejects.toBe(reason)
        const { same } = await program.run(mixedInputs, { outputs: ['same'], signal: new AbortController().signal })
        expect(same!.data).toEqual(mixedInputs.x!.data)
        same!.dispose()
        await program.close()
      })

      test('a signal that outlives many runs collects no listeners', async () => {
        const program = engine.compile(mixed)
        const { signal } = new AbortController()
        let listeners = 0
        const [add, remove] = [signal.addEventListener, signal.removeEventListener]
        signal.addEventListener = (...args: Parameters<typeof add>) => {
          listeners++
          add.apply(signal, args)
        }
        signal.removeEventListener = (...args: Parameters<typeof remove>) => {
          listeners--
          remove.apply(signal, args)
        }
        for (let turn = 0; turn < 3; turn++) {
          for (const tensor of Object.values(await program.run(mixedInputs, { signal }))) tensor.dispose()
        }
        await new Promise(setImmediate)
        expect(listeners).toBe(0)
      })
    })

    test('a closed program refuses to run, waits for runs under way, and closes once', async () => {
      const program = engine.compile(mixed)
      const running = program.run(mixedInputs, { outputs: ['same'] })
      const closing = [program.close(), program.close()]
      await expect(program.run(mixedInputs)).rejects.toMatchObject({ code: 'program-closed' })
      const { same } = await running
      expect(same!.data).toEqual(mixedInputs.x!.data)
      same!.dispose()
      await Promise.all(closing)
    })

    test('the backend of TensorFlow.js is what it was, also after a failure', async () => {
      const before = tf.getBackend()
      const failing: ProgramDefinition = {
        name: 'failing',
        inputs: {},
        build: () => {
          throw new RangeError('of the model')
        },
      }
      await expect(values(failing, {})).rejects.toThrow('of the model')
      expect(tf.getBackend()).toBe(before)
      expect(tf.memory().numTensors).toBe(tensors)
    })
  })
}
