/** Cases of making, cutting, joining and rearranging. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Drawn, Sample } from './differential.ts'

type Compute = (...inputs: tf.Tensor[]) => tf.Tensor | tf.Tensor[]

/** A case over one tensor whose other choices are drawn with its shape known. */
function of(
  name: string,
  rank: number,
  choose: (s: Sample, shape: number[]) => Compute,
  rest: Partial<Case> = {},
): Case {
  const sample = (s: Sample): Drawn => {
    const shape = s.shape(rank, 2, 4)
    const compute = choose(s, shape)
    return { inputs: [s.floats(shape)], compute }
  }
  return { name, sample, gradient: true, ...rest }
}

function several(name: string, compute: (tensors: tf.Tensor[], axis: number) => tf.Tensor, alike: boolean): Case {
  const sample = (s: Sample): Drawn => {
    const shape = s.shape(3)
    const axis = s.integer(0, 2)
    const sizes = Array.from({ length: s.integer(1, 12) }, () => (alike ? shape[axis]! : s.integer(0, 3)))
    if (!alike) sizes.push(2)
    const inputs = sizes.map((size) => s.floats(shape.map((n, i) => (i === axis ? size : n))))
    return { inputs, compute: (...tensors) => compute(tensors, axis) }
  }
  return { name, sample, gradient: alike }
}

function shuffled(s: Sample, count: number): number[] {
  return Array.from({ length: count }, (_, i) => ({ i, key: s.unit() }))
    .sort((left, right) => left.key - right.key)
    .map(({ i }) => i)
}

function gather(name: string, axis: number, indexShape: number[], batchDims = 0): Case {
  const sample = (s: Sample): Drawn => {
    const shape = [2, ...s.shape(2, 2, 5)]
    return {
      inputs: [s.floats(shape), s.integers(indexShape, 0, shape[axis]! - 1)],
      compute: (x, indices) => tf.gather(x!, indices!, axis, batchDims),
    }
  }
  return { name, sample, gradient: batchDims < 2 }
}

/** Index tuples into [4, 5], all different. */
function places(s: Sample, count: number) {
  const chosen = shuffled(s, 20).slice(0, count)
  const data = Int32Array.from(chosen.flatMap((n) => [Math.floor(n / 5), n % 5]))
  return { shape: [count, 2], dtype: 'int32', data } as const
}

const pads = (s: Sample, rank: number, most: number) =>
  Array.from({ length: rank }, (): [number, number] => [s.integer(0, most), s.integer(0, most)])

export const arrays: readonly Case[] = [
  of('clone', 3, () => (x) => x!.clone()),
  of('reshape', 3, () => (x) => x!.reshape([x!.shape[1]!, -1])),
  of('expandDims', 3, (s) => {
    const axis = s.integer(-4, 3)
    return (x) => x!.expandDims(axis)
  }),
  of('squeeze', 2, () => (x) => x!.expandDims(1).squeeze()),
  of('transpose', 4, (s) => {
    const order = shuffled(s, 4)
    return (x) => x!.transpose(order)
  }),
  of('tile', 3, (s) => {
    const times = s.shape(3, 1, 3)
    return (x) => x!.tile(times)
  }),
  of('broadcastTo', 2, () => (x) => tf.broadcastTo(x!, [3, ...x!.shape])),
  of('reverse', 3, (s) => {
    const axes = s.pick([[0], [1, 2], [-1], [0, 1, 2]])
    return (x) => x!.reverse(axes)
  }),
  of('flipLeftRight', 4, () => (x) => tf.image.flipLeftRight(x as tf.Tensor4D), { gradient: false }),
  several('concat', (tensors, axis) => tf.concat(tensors, axis), false),
  several('concat of alike', (tensors, axis) => tf.concat(tensors, axis - 3), true),
  several('stack', (tensors, axis) => tf.stack(tensors, axis), true),
  several('addN', (tensors) => tf.addN(tensors), true),
  of('unstack', 3, (s) => {
    const axis = s.integer(-3, 2)
    return (x) => tf.unstack(x!, axis)
  }),
  of('split evenly', 2, () => (x) => tf.split(tf.concat([x!, x!], 1), 2, 1)),
  of('split by sizes', 2, () => (x) => tf.split(x!, [1, -1], 1)),
  of('slice', 3, (s, shape) => {
    const begin = shape.map((size) => s.integer(0, size - 1))
    const size = shape.map((n, i) => s.pick([-1, s.integer(1, n - begin[i]!)]))
    return (x) => x!.slice(begin, size)
  }),
  of(
    'stridedSlice',
    3,
    (s, shape) => {
      const strides = shape.map(() => s.pick([1, 2, -1]))
      const begin = shape.map((size, i) => (strides[i]! > 0 ? 0 : size - 1))
      const end = shape.map((size, i) => (strides[i]! > 0 ? size : 0))
      const [beginMask, endMask] = [s.integer(0, 7), s.integer(0, 7)]
      return (x) => tf.stridedSlice(x!, begin, end, strides, beginMask, endMask)
    },
    { gradient: false },
  ),
  of(
    'stridedSlice that drops axes',
    3,
    (s, shape) => {
      const begin = shape.map((size) => s.integer(0, size - 1))
      const shrinkAxisMask = s.integer(1, 7)
      // TensorFlow.js's kernel goes wrong where axes are dropped and others have strides.
      return (x) => tf.stridedSlice(x!, begin, [...x!.shape], [1, 1, 1], 0, 0, 0, 0, shrinkAxisMask)
    },
    { gradient: false },
  ),
  of(
    'stridedSlice with new axis and ellipsis',
    3,
    () => (x) => tf.stridedSlice(x!, [0, 0, 0], [1, 1, 2], [1, 1, 1], 0, 0, 2, 1, 0),
    { gradient: false },
  ),
  of('pad', 3, (s) => {
    const paddings = pads(s, 3, 2)
    return (x) => tf.pad(x!, paddings, 0.7)
  }),
  of('mirrorPad by reflection', 3, (s) => {
    const paddings = pads(s, 3, 1)
    return (x) => tf.mirrorPad(x!, paddings, 'reflect')
  }),
  of('mirrorPad symmetric', 3, (s) => {
    const paddings = pads(s, 3, 2)
    return (x) => tf.mirrorPad(x!, paddings, 'symmetric')
  }),
  {
    name: 'spaceToBatchND and back',
    gradient: true,
    sample: (s) => {
      const x = s.floats([s.integer(1, 2), 4, 6, 2])
      return {
        inputs: [x],
        compute: (x) => {
          const spread = tf.spaceToBatchND(
            x!,
            [2, 3],
            [
              [1, 1],
              [0, 3],
            ],
          )
          return [
            spread,
            tf.batchToSpaceND(
              spread.square(),
              [2, 3],
              [
                [1, 1],
                [0, 3],
              ],
            ),
          ]
        },
      }
    },
  },
  gather('gather rows', 0, [6]),
  gather('gather along the last axis', 2, [2, 3]),
  gather('gather in batches', 1, [2, 3], 1),
  {
    name: 'gatherND',
    sample: (s) => ({
      inputs: [s.floats([4, 5, 2]), places(s, 6)],
      compute: (x, indices) => tf.gatherND(x!, indices!),
    }),
  },
  {
    name: 'scatterND, which adds where indices repeat',
    sample: (s) => ({
      inputs: [s.integers([7, 2], 0, 3), s.floats([7, 2])],
      compute: (indices, updates) => tf.scatterND(indices!, updates!, [4, 5, 2]),
    }),
  },
  {
    name: 'tensorScatterUpdate',
    sample: (s) => ({
      inputs: [s.floats([4, 5]), places(s, 6), s.floats([6])],
      compute: (x, indices, updates) => tf.tensorScatterUpdate(x!, indices!, updates!),
    }),
  },
  {
    name: 'sparseToDense in any order',
    sample: (s) => ({
      inputs: [places(s, 6), s.floats([6])],
      compute: (indices, values) => tf.sparseToDense(indices!, values!, [4, 5], 0.25),
    }),
  },
  {
    name: 'unsortedSegmentSum, which drops negative segments',
    gradient: true,
    sample: (s) => ({
      inputs: [s.floats([6, 3]), s.integers([6], -1, 3)],
      compute: (x, segments) => tf.unsortedSegmentSum(x!, segments as tf.Tensor1D, 4),
    }),
  },
  {
    name: 'oneHot, also of indices out of range',
    sample: (s) => ({
      inputs: [s.integers([2, 5], -1, 4)],
      compute: (x) => [tf.oneHot(x!, 4), tf.oneHot(x!, 4, 0.9, 0.1, 'float32'), tf.oneHot(x!, 4, 1, 0, 'bool')],
    }),
  },
  of('diag', 2, () => (x) => tf.diag(x!), { gradient: false }),
  of('fill, ones, zeros and their likes', 2, () => (x) => [
    tf.fill([2, 3], 0.7).mul(x!.sum()),
    tf.onesLike(x!).mul(x!),
    tf.zerosLike(x!).add(x!),
    tf.ones([2], 'int32'),
    tf.zeros([2], 'bool'),
  ]),
  {
    name: 'range and linspace',
    sample: (s) => {
      const [start, step, count] = [s.integer(-3, 3), s.pick([0.1, -0.3, 2]), s.integer(1, 9)]
      return {
        inputs: [s.floats([1])],
        compute: (x) => [
          tf.range(start, start + step * count, step).mul(x!),
          tf.range(start, start + count, 1, 'int32'),
          tf.linspace(start, 7.3, count + 1).mul(x!),
        ],
      }
    },
  },
]
