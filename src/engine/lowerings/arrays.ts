// SPDX-License-Identifier: Apache-2.0
/** Making, cutting, joining and rearranging tensors. */
import * as tf from '@tensorflow/tfjs'
import type { GraphBuilder, GraphDataType, GraphOutput, Lowering } from '../lowering.ts'
import { axesOf, cast, int32s, type LoweringEntries, listOf, lowering, node, reshape, same, scalar } from './nodes.ts'

/** A kernel whose result depends on its attributes alone: the CPU backend computes it while tracing. */
function computed(kernelName: string): Lowering {
  return (graph, _, attributes) => {
    const backend = tf.findBackend('cpu')
    const kernel = tf.getKernel(kernelName, 'cpu')
    const { dataId, shape, dtype } = kernel.kernelFunc({
      inputs: {},
      attrs: attributes as tf.NamedAttrMap,
      backend,
    }) as tf.TensorInfo
    const values = backend.readSync(dataId) as Float32Array
    backend.disposeData(dataId)
    return graph.constant(values, shape, dtype as GraphDataType)
  }
}

/** [before, after] of each axis, as TensorFlow's [rank, 2] tensor. */
function pairs(graph: GraphBuilder, values: readonly (readonly number[])[]): GraphOutput {
  return graph.constant(values.flat(), [values.length, 2], 'int32')
}

export function pad(
  graph: GraphBuilder,
  x: GraphOutput,
  paddings: readonly (readonly number[])[],
  value = 0,
): GraphOutput {
  return node(graph, 'PadV2', [x, pairs(graph, paddings), scalar(graph, value, x.dtype)])
}

export function slice(
  graph: GraphBuilder,
  x: GraphOutput,
  begin: readonly number[],
  size: readonly number[],
): GraphOutput {
  return node(graph, 'Slice', [x, int32s(graph, begin), int32s(graph, size)])
}

export function transpose(graph: GraphBuilder, x: GraphOutput, permutation: readonly number[]): GraphOutput {
  return node(graph, 'Transpose', [x, int32s(graph, permutation)])
}

export function fill(graph: GraphBuilder, shape: readonly number[], value: number, dtype: GraphDataType): GraphOutput {
  return node(graph, 'Fill', [int32s(graph, shape), scalar(graph, value, dtype)])
}

/** Tensors without elements may have any shape; the result has the type of the first. */
const concat: Lowering = (graph, inputs, attributes) => {
  const tensors = listOf(inputs)
  const [first] = tensors
  const axis = axesOf(attributes.axis as number, first!)[0]!
  const filled = tensors.filter(({ shape }) => !shape.includes(0)).map((tensor) => cast(graph, tensor, first!.dtype))
  if (filled.length === 0) {
    const shape = tf.backend_util.computeOutShape(
      tensors.map(({ shape }) => [...shape]),
      axis,
    )
    return graph.constant([], shape, first!.dtype)
  }
  return filled.length === 1 ? filled[0]! : node(graph, 'ConcatV2', [filled, scalar(graph, axis, 'int32')])
}

const splitV = lowering<tf.SplitVAttrs>((graph, { x }, { numOrSizeSplits, axis }) => {
  const [split] = axesOf(axis, x!)
  // TensorFlow.js asks for no more than the shape.
  const sizes = tf.backend_util.prepareSplitSize({ shape: [...x!.shape] } as tf.Tensor, numOrSizeSplits, split)
  return graph.add('SplitV', [x!, int32s(graph, sizes), scalar(graph, split!, 'int32')], {
    num_split: { int: sizes.length },
  })
})

const sliced = lowering<tf.SliceAttrs>((graph, { x }, { begin, size }) => {
  const shaped = { shape: [...x!.shape] } as tf.Tensor
  const [begins, sizes] = tf.slice_util.parseSliceParams(shaped, begin, size)
  return slice(graph, x!, begins!, sizes!)
})

const stridedSlice = lowering<tf.StridedSliceAttrs>((graph, { x }, attributes) =>
  node(
    graph,
    'StridedSlice',
    [x!, int32s(graph, attributes.begin), int32s(graph, attributes.end), int32s(graph, attributes.strides)],
    {
      begin_mask: { int: attributes.beginMask },
      end_mask: { int: attributes.endMask },
      ellipsis_mask: { int: attributes.ellipsisMask },
      new_axis_mask: { int: attributes.newAxisMask },
      shrink_axis_mask: { int: attributes.shrinkAxisMask },
    },
  ),
)

const gatherV2 = lowering<tf.GatherV2Attrs>((graph, { x, indices }, { axis, batchDims }) =>
  node(graph, 'GatherV2', [x!, cast(graph, indices!, 'int32'), scalar(graph, axesOf(axis, x!)[0]!, 'int32')], {
    batch_dims: { int: batchDims ?? 0 },
  }),
)

const oneHot = lowering<tf.OneHotAttrs>((graph, { indices }, { depth, onValue, offValue, dtype }) =>
  node(graph, 'OneHot', [
    cast(graph, indices!, 'int32'),
    scalar(graph, depth, 'int32'),
    scalar(graph, onValue, dtype as GraphDataType),
    scalar(graph, offValue, dtype as GraphDataType),
  ]),
)

const sparseToDense = lowering<tf.SparseToDenseAttrs>((graph, inputs, { outputShape }) => {
  const { sparseIndices, sparseValues, defaultValue } = inputs
  return node(
    graph,
    'SparseToDense',
    [sparseIndices!, int32s(graph, outputShape), sparseValues!, cast(graph, defaultValue!, sparseValues!.dtype)],
    // TensorFlow would demand ascending indices; TensorFlow.js takes them in any order.
    { validate_indices: { bool: false } },
  )
})

export const arrays: LoweringEntries = [
  ['Identity', (_, { x }) => x!],
  ['Reshape', lowering<tf.ReshapeAttrs>((graph, { x }, { shape }) => reshape(graph, x!, shape))],
  [
    'ExpandDims',
    lowering<tf.ExpandDimsAttrs>((graph, { input }, { dim }) =>
      node(graph, 'ExpandDims', [input!, scalar(graph, dim, 'int32')]),
    ),
  ],
  ['Transpose', lowering<tf.TransposeAttrs>((graph, { x }, { perm }) => transpose(graph, x!, perm))],
  ['Tile', lowering<tf.TileAttrs>((graph, { x }, { reps }) => node(graph, 'Tile', [x!, int32s(graph, reps)]))],
  [
    'Reverse',
    lowering<tf.ReverseAttrs>((graph, { x }, { dims }) =>
      node(graph, 'ReverseV2', [x!, int32s(graph, axesOf(dims, x!))]),
    ),
  ],
  ['FlipLeftRight', (graph, { image }) => node(graph, 'ReverseV2', [image!, int32s(graph, [2])])],
  ['Concat', concat],
  ['SplitV', splitV],
  [
    'Pack',
    lowering<tf.PackAttrs>((graph, inputs, { axis }) => node(graph, 'Pack', [listOf(inputs)], { axis: { int: axis } })),
  ],
  [
    'Unpack',
    lowering<tf.UnpackAttrs>((graph, { value }, { axis }) => {
      const [along] = axesOf(axis, value!)
      return graph.add('Unpack', [value!], { num: { int: value!.shape[along!]! }, axis: { int: along! } })
    }),
  ],
  ['AddN', (graph, inputs) => node(graph, 'AddN', [listOf(inputs)])],
  ['Slice', sliced],
  ['StridedSlice', stridedSlice],
  [
    'PadV2',
    lowering<tf.PadV2Attrs>((graph, { x }, { paddings, constantValue }) => pad(graph, x!, paddings, constantValue)),
  ],
  [
    'MirrorPad',
    lowering<tf.MirrorPadAttrs>((graph, { x }, { paddings, mode }) =>
      node(graph, 'MirrorPad', [x!, pairs(graph, paddings)], { mode: { string: mode.toUpperCase() } }),
    ),
  ],
  [
    'SpaceToBatchND',
    lowering<tf.SpaceToBatchNDAttrs>((graph, { x }, { blockShape, paddings }) =>
      node(graph, 'SpaceToBatchND', [x!, int32s(graph, blockShape), pairs(graph, paddings)]),
    ),
  ],
  [
    'BatchToSpaceND',
    lowering<tf.BatchToSpaceNDAttrs>((graph, { x }, { blockShape, crops }) =>
      node(graph, 'BatchToSpaceND', [x!, int32s(graph, blockShape), pairs(graph, crops)]),
    ),
  ],
  ['GatherV2', gatherV2],
  ['GatherNd', same('GatherNd', 'params', 'indices')],
  [
    'ScatterNd',
    lowering<tf.ScatterNdAttrs>((graph, { indices, updates }, { shape }) =>
      node(graph, 'ScatterNd', [indices!, updates!, int32s(graph, shape)]),
    ),
  ],
  ['TensorScatterUpdate', same('TensorScatterUpdate', 'tensor', 'indices', 'updates')],
  ['SparseToDense', sparseToDense],
  [
    'UnsortedSegmentSum',
    lowering<tf.UnsortedSegmentSumAttrs>((graph, { x, segmentIds }, { numSegments }) =>
      node(graph, 'UnsortedSegmentSum', [x!, cast(graph, segmentIds!, 'int32'), scalar(graph, numSegments, 'int32')]),
    ),
  ],
  ['OneHot', oneHot],
  ['Diag', same('Diag', 'x')],
  [
    'Fill',
    lowering<tf.FillAttrs>((graph, _, { shape, value, dtype }) =>
      fill(graph, shape, Number(value), dtype as GraphDataType),
    ),
  ],
  ['OnesLike', same('OnesLike', 'x')],
  ['ZerosLike', same('ZerosLike', 'x')],
  ['Range', computed('Range')],
  ['LinSpace', computed('LinSpace')],
]
