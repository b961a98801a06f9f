/** Cases of kernels that fold axes away or run along them. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Drawn, Sample } from './differential.ts'

type Reduce = (x: tf.Tensor, axis: number | number[] | undefined, keepDims: boolean) => tf.Tensor

/** No axis, one (also counted from the end), or several. */
function axes(s: Sample, rank: number): number | number[] | undefined {
  const all = Array.from({ length: rank }, (_, axis) => axis)
  return s.pick<number | number[] | undefined>([
    undefined,
    s.integer(-rank, rank - 1),
    all.filter(() => s.boolean()),
    all.slice(s.integer(0, rank - 1)),
  ])
}

function reduction(
  name: string,
  reduce: Reduce,
  draw: (s: Sample, shape: number[]) => Drawn['inputs'][0],
  rest: Partial<Case> = {},
): Case {
  const sample = (s: Sample): Drawn => {
    const shape = s.shape(s.integer(1, 4))
    const [axis, keepDims] = [axes(s, shape.length), s.boolean()]
    return { inputs: [draw(s, shape)], compute: (x) => reduce(x!, axis, keepDims) }
  }
  return { name, sample, ...rest }
}

const floats = (s: Sample, shape: number[]) => s.floats(shape)
const ties = (s: Sample, shape: number[]) => s.whole(shape, -1, 1)
const integers = (s: Sample, shape: number[]) => s.integers(shape, -3, 3)
const gradient = { gradient: true }

/** TensorFlow.js's cumulative kernels, and its gradient of prod, do not count axes from the end. */
function fromStart<Axis extends number | number[] | undefined>(axis: Axis, x: tf.Tensor): Axis {
  return typeof axis === 'number' && axis < 0 ? ((axis + x.rank) as Axis) : axis
}

type Along = (x: tf.Tensor, axis: number, exclusive: boolean, reverse: boolean) => tf.Tensor

function along(name: string, compute: Along, draw = floats, rest: Partial<Case> = {}): Case {
  const sample = (s: Sample): Drawn => {
    const shape = s.shape(s.integer(1, 4))
    const [axis, exclusive, reverse] = [s.integer(-shape.length, shape.length - 1), s.boolean(), s.boolean()]
    return { inputs: [draw(s, shape)], compute: (x) => compute(x!, axis, exclusive, reverse) }
  }
  return { name, sample, ...rest }
}

export const reductions: readonly Case[] = [
  reduction('sum', (x, axis, keepDims) => tf.sum(x, axis, keepDims), floats, gradient),
  reduction('sum of int32', (x, axis, keepDims) => tf.sum(x, axis, keepDims), integers),
  reduction('sum of truths', (x, axis, keepDims) => tf.sum(x.greater(0), axis, keepDims), floats),
  reduction('mean', (x, axis, keepDims) => tf.mean(x, axis, keepDims), floats, gradient),
  reduction('mean of int32', (x, axis, keepDims) => tf.mean(x, axis, keepDims), integers),
  reduction('moments', (x, axis, keepDims) => tf.stack(Object.values(tf.moments(x, axis, keepDims))), floats, gradient),
  reduction('prod', (x, axis, keepDims) => tf.prod(x, fromStart(axis, x), keepDims), floats, gradient),
  reduction('prod of int32', (x, axis, keepDims) => tf.prod(x, axis, keepDims), integers),
  reduction('max', (x, axis, keepDims) => tf.max(x, axis, keepDims), floats, gradient),
  reduction('max at ties', (x, axis, keepDims) => tf.max(x, axis, keepDims), ties, gradient),
  reduction('max of int32', (x, axis, keepDims) => tf.max(x, axis, keepDims), integers),
  reduction('min', (x, axis, keepDims) => tf.min(x, axis, keepDims), floats, gradient),
  reduction('min at ties', (x, axis, keepDims) => tf.min(x, axis, keepDims), ties, gradient),
  reduction('min of int32', (x, axis, keepDims) => tf.min(x, axis, keepDims), integers),
  reduction('all', (x, axis, keepDims) => tf.all(x.greater(-1), axis, keepDims), floats),
  reduction('any', (x, axis, keepDims) => tf.any(x.greater(1), axis, keepDims), floats),
  reduction('logSumExp', (x, axis, keepDims) => tf.logSumExp(x, axis, keepDims), floats, gradient),
  reduction('norm', (x, axis, keepDims) => tf.norm(x, 'euclidean', [axis ?? []].flat()[0], keepDims), floats, gradient),
  along('argMax', (x, axis) => tf.argMax(x, axis)),
  along('argMax at ties', (x, axis) => tf.argMax(x, axis), ties),
  along('argMin', (x, axis) => tf.argMin(x, axis)),
  along('argMin at ties of int32', (x, axis) => tf.argMin(x, axis), integers),
  along(
    'cumsum',
    (x, axis, exclusive, reverse) => tf.cumsum(x, fromStart(axis, x), exclusive, reverse),
    floats,
    gradient,
  ),
  along(
    'cumsum of int32',
    (x, axis, exclusive, reverse) => tf.cumsum(x, fromStart(axis, x), exclusive, reverse),
    integers,
  ),
  along('cumprod', (x, axis, exclusive, reverse) => tf.cumprod(x, fromStart(axis, x), exclusive, reverse)),
  {
    name: 'topk',
    sample: (s) => {
      const shape = s.shape(2, 2, 6)
      const k = s.integer(1, shape[1]!)
      return { inputs: [s.whole(shape)], compute: (x) => Object.values(tf.topk(x!, k, true)) }
    },
  },
]
