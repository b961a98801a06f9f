/**
 * Differential testing of lowerings: a case is run as a program on both engines, forward and gradient, and every element
 * of every output must agree. Shapes, attributes and values come from a seeded `Sample`.
 */
import { join } from 'node:path'
import * as tf from '@tensorflow/tfjs'
import { expect } from 'vitest'
import type { Engine, HostTensor, Signature } from '../../src/engine/engine.ts'
import { createJavascriptEngine } from '../../src/engine/javascript.ts'
import { createTensorflowEngine } from '../../src/engine/tensorflow.ts'
import { cacheDirectory } from '../requirements.ts'

export interface Case {
  readonly name: string
  /** Draws the inputs, and gives the function of them. */
  readonly sample: (sample: Sample) => Drawn
  /** Also compare the gradient by every float32 input. */
  readonly gradient?: boolean
  readonly tolerance?: number
}

export interface Drawn {
  readonly inputs: readonly HostTensor[]
  readonly compute: (...inputs: tf.Tensor[]) => tf.Tensor | tf.Tensor[]
}

/** A reproducible source of shapes and values (mulberry32). */
export class Sample {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  /** In [0, 1). */
  unit(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  integer(low: number, high: number): number {
    return low + Math.floor(this.unit() * (high - low + 1))
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.integer(0, choices.length - 1)]!
  }

  boolean(): boolean {
    return this.unit() < 0.5
  }

  shape(rank: number, low = 1, high = 4): number[] {
    return Array.from({ length: rank }, () => this.integer(low, high))
  }

  /** Distinct with near certainty. */
  floats(shape: readonly number[], low = -2, high = 2): HostTensor {
    const data = Float32Array.from({ length: size(shape) }, () => low + this.unit() * (high - low))
    return { shape, dtype: 'float32', data }
  }

  /** Whole floats: ties, zeros and exact halves once halved. */
  whole(shape: readonly number[], low = -3, high = 3): HostTensor {
    return { shape, dtype: 'float32', data: Float32Array.from(this.integers(shape, low, high).data) }
  }

  integers(shape: readonly number[], low = -9, high = 9): HostTensor {
    return { shape, dtype: 'int32', data: Int32Array.from({ length: size(shape) }, () => this.integer(low, high)) }
  }

  /** Two shapes that broadcast against each other. */
  broadcastable(): [number[], number[]] {
    const shape = this.shape(this.integer(0, 4))
    const shrink = () => shape.slice(this.integer(0, shape.length)).map((n) => (this.unit() < 0.3 ? 1 : n))
    return this.pick([
      [shape, shape],
      [shape, shrink()],
      [shrink(), shape],
      [shrink(), shrink()],
    ])
  }
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1)
}

let opened: readonly [tensorflow: Engine, javascript: Engine] | undefined

export function engines(): readonly [tensorflow: Engine, javascript: Engine] {
  opened ??= [
    createTensorflowEngine({
      directory:
        process.env.CLOISTER_ENGINE ??
        join(cacheDirectory, `engine/tensorflow-2.21.0-${process.platform}-${process.arch}`),
      threads: 2,
    }),
    createJavascriptEngine(),
  ]
  return opened
}

/** Runs one sample of each case on both engines, all in one program: compiling is what costs. */
export async function compareCases(cases: readonly Case[], seed: number): Promise<void> {
  const drawn = cases.map((each, i) => ({ ...each, ...each.sample(new Sample(seed * 1009 + i)) }))
  const inputs = Object.fromEntries(drawn.flatMap(({ inputs }, i) => inputs.map((input, j) => [`${i}.${j}`, input])))
  const build = (bound: Record<string, tf.Tensor>) =>
    Object.assign(
      {},
      ...drawn.map((each, i) => {
        const own = each.inputs.map((_, j) => bound[`${i}.${j}`]!)
        try {
          return outputsOf(each, own, `${each.name}, seed ${seed}`)
        } catch (cause) {
          throw new Error(`${each.name}, seed ${seed}: ${cause instanceof Error ? cause.message : cause}`, { cause })
        }
      }),
    )
  const tolerances = new Map(drawn.map(({ name, tolerance }) => [`${name}, seed ${seed}`, tolerance ?? 2e-5]))
  await compareProgram(inputs, build, (output) => tolerances.get(output.split(' → ')[0]!)!)
}

function outputsOf({ compute, gradient }: Case & Drawn, inputs: tf.Tensor[], name: string): Record<string, tf.Tensor> {
  const results = [compute(...inputs)].flat()
  const outputs = Object.fromEntries(results.map((result, i) => [`${name} → output ${i}`, result]))
  const floats = inputs.map((_, i) => i).filter((i) => inputs[i]!.dtype === 'float32')
  if (gradient !== true || floats.length === 0) return outputs
  const weighted = (...moved: tf.Tensor[]) => {
    const all = inputs.map((input, i) => (floats.includes(i) ? moved[floats.indexOf(i)]! : input))
    const terms = [compute(...all)].flat().filter(({ dtype }) => dtype === 'float32')
    return terms.map((term) => term.mul(unevenWeights(term.shape)).sum()).reduce((sum, term) => sum.add(term))
  }
  const gradients = tf.grads(weighted)(floats.map((i) => inputs[i]!))
  gradients.forEach((value, i) => {
    outputs[`${name} → gradient ${floats[i]}`] = value
  })
  return outputs
}

/** What dy is: no two elements alike, so that a permuted gradient cannot pass. */
function unevenWeights(shape: number[]): tf.Tensor {
  return tf.tensor(
    Float32Array.from({ length: size(shape) }, (_, i) => Math.sin(1.7 * i + 1)),
    shape,
  )
}

export async function compareProgram(
  inputs: Readonly<Record<string, HostTensor>>,
  build: (inputs: Record<string, tf.Tensor>) => Record<string, tf.Tensor>,
  toleranceOf: (output: string) => number,
): Promise<void> {
  const signature: Signature = Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, dtype }]) => [name, { shape, dtype }]),
  )
  const [actual, expected] = await Promise.all(
    engines().map(async (engine) => {
      const program = engine.compile({ name: 'differential', inputs: signature, build })
      const outputs = await program.run(inputs)
      const copies = Object.fromEntries(
        Object.entries(outputs).map(([name, { shape, dtype, data }]) => [name, { shape, dtype, data: data.slice() }]),
      )
      for (const output of Object.values(outputs)) output.dispose()
      await program.close()
      return copies
    }),
  )
  expect(Object.keys(actual!)).toEqual(Object.keys(expected!))
  for (const [name, output] of Object.entries(expected!)) expectSame(name, actual![name]!, output, toleranceOf(name))
}

function expectSame(name: string, actual: HostTensor, expected: HostTensor, tolerance: number): void {
  expect({ shape: actual.shape, dtype: actual.dtype }, name).toEqual({ shape: expected.shape, dtype: expected.dtype })
  const worst = [...expected.data].findIndex((value, i) => !close(actual.data[i]!, value, tolerance))
  if (worst >= 0)
    expect.fail(
      `${name}: element ${worst} of [${expected.shape}] is ${actual.data[worst]}, not ${expected.data[worst]}`,
    )
}

function close(actual: number, expected: number, tolerance: number): boolean {
  if (Object.is(actual, expected) || actual === expected) return true
  return Math.abs(actual - expected) <= tolerance * (1 + Math.abs(expected))
}
