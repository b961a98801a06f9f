// SPDX-License-Identifier: Apache-2.0
/** Resizing, cropping and rearranging of images [batch, height, width, channels]. */
import type * as tf from '@tensorflow/tfjs'
import { cast, int32s, type LoweringEntries, lowering, node } from './nodes.ts'

function resizing({ alignCorners, halfPixelCenters }: tf.ResizeBilinearAttrs) {
  return { align_corners: { bool: alignCorners }, half_pixel_centers: { bool: halfPixelCenters } }
}

export const images: LoweringEntries = [
  [
    'ResizeBilinear',
    lowering<tf.ResizeBilinearAttrs>((graph, { images }, attributes) =>
      node(graph, 'ResizeBilinear', [images!, int32s(graph, attributes.size)], resizing(attributes)),
    ),
  ],
  [
    'ResizeBilinearGrad',
    lowering<tf.ResizeBilinearAttrs>((graph, { images, dy }, attributes) =>
      node(graph, 'ResizeBilinearGrad', [dy!, cast(graph, images!, 'float32')], resizing(attributes)),
    ),
  ],
  [
    'ResizeNearestNeighbor',
    lowering<tf.ResizeNearestNeighborAttrs>((graph, { images }, attributes) =>
      node(graph, 'ResizeNearestNeighbor', [images!, int32s(graph, attributes.size)], resizing(attributes)),
    ),
  ],
  [
    'ResizeNearestNeighborGrad',
    lowering<tf.ResizeNearestNeighborAttrs>((graph, { images, dy }, attributes) => {
      const size = int32s(graph, images!.shape.slice(1, 3))
      return node(graph, 'ResizeNearestNeighborGrad', [dy!, size], resizing(attributes))
    }),
  ],
  [
    'CropAndResize',
    lowering<tf.CropAndResizeAttrs>((graph, { image, boxes, boxInd }, { cropSize, method, extrapolationValue }) =>
      node(graph, 'CropAndResize', [image!, boxes!, boxInd!, int32s(graph, cropSize)], {
        method: { string: method },
        extrapolation_value: { float: extrapolationValue },
      }),
    ),
  ],
  [
    'DepthToSpace',
    lowering<tf.DepthToSpaceAttrs>((graph, { x }, { blockSize, dataFormat }) =>
      node(graph, 'DepthToSpace', [x!], { block_size: { int: blockSize }, data_format: { string: dataFormat } }),
    ),
  ],
]
