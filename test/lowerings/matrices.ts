/** Cases of matrix products, einsum and the fused product. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Sample } from './differential.ts'

const activations = ['linear', 'relu', 'relu6', 'elu', 'sigmoid', 'leakyrelu', 'prelu'] as const

export type FusedActivation = (typeof activations)[number]

/** One case for each activation of a fused kernel; with one of them TensorFlow.js fuses under a gradient too. */
export function withActivations(name: string, caseOf: (activation: FusedActivation) => Omit<Case, 'name'>): Case[] {
  return activations.map((activation) => ({ name: `${name} with ${activation}`, ...caseOf(activation) }))
}

function operands(s: Sample, batchA: number[], batchB: number[]) {
  const [m, k, n] = s.shape(3, 1, 5)
  const [transposeA, transposeB] = [s.boolean(), s.boolean()]
  const a = s.floats([...batchA, ...(transposeA ? [k!, m!] : [m!, k!])])
  const b = s.floats([...batchB, ...(transposeB ? [n!, k!] : [k!, n!])])
  return { a, b, m: m!, n: n!, transposeA, transposeB }
}

function product(name: string, batches: (s: Sample) => [number[], number[]]): Case {
  return {
    name,
    gradient: true,
    sample: (s) => {
      const { a, b, transposeA, transposeB } = operands(s, ...batches(s))
      return { inputs: [a, b], compute: (a, b) => tf.matMul(a!, b!, transposeA, transposeB) }
    },
  }
}

function einsum(equation: string, ...ranks: string[]): Case {
  return {
    name: `einsum ${equation}`,
    sample: (s) => {
      const sizes = Object.fromEntries([...new Set(ranks.join(''))].map((label) => [label, s.integer(1, 4)]))
      const inputs = ranks.map((labels) => s.floats([...labels].map((label) => sizes[label]!)))
      return { inputs, compute: (...tensors) => tf.einsum(equation, ...tensors) }
    },
  }
}

export const matrices: readonly Case[] = [
  product('matMul', () => [[], []]),
  product('matMul in batches', (s) => {
    const batch = s.shape(s.integer(1, 2))
    return [batch, batch]
  }),
  {
    name: 'matMul of a batch by one matrix',
    sample: (s) => {
      const { a, b, transposeA, transposeB } = operands(s, [s.integer(2, 4)], s.pick([[], [1]]))
      return { inputs: [a, b], compute: (a, b) => tf.matMul(a!, b!, transposeA, transposeB) }
    },
  },
  {
    name: 'dot',
    gradient: true,
    sample: (s) => ({ inputs: [s.floats([4]), s.floats([4])], compute: (a, b) => tf.dot(a!, b!) }),
  },
  ...withActivations('fused matMul', (activation) => ({
    gradient: true,
    sample: (s) => {
      const { a, b, m, n, transposeA, transposeB } = operands(s, [], [])
      const bias = s.floats(s.pick([[n], [1, n], [m, n]]))
      const prelu = activation === 'prelu' ? [s.floats([n])] : []
      return {
        inputs: [a, b, bias, ...prelu],
        compute: (a, b, bias, preluActivationWeights) =>
          tf.fused.matMul({
            a: a!,
            b: b!,
            transposeA,
            transposeB,
            bias: bias!,
            activation,
            leakyreluAlpha: 0.3,
            ...(preluActivationWeights && { preluActivationWeights }),
          }),
      }
    },
  })),
  {
    name: 'fused matMul without bias',
    gradient: true,
    sample: (s) => {
      const { a, b, transposeA, transposeB } = operands(s, [], [])
      return { inputs: [a, b], compute: (a, b) => tf.fused.matMul({ a: a!, b: b!, transposeA, transposeB }) }
    },
  },
  einsum('ij,jk->ik', 'ij', 'jk'),
  einsum('bij,bjk->bik', 'bij', 'bjk'),
  einsum('ij->ji', 'ij'),
  einsum('bhqd,bhkd->bhqk', 'bhqd', 'bhkd'),
]
