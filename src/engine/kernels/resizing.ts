// SPDX-License-Identifier: Apache-2.0
/**
 * The backward kernels of image resizing on TensorFlow.js's CPU backend, replaced: its own mix up images of a batch, mix up
 * height and width, and know nothing of half-pixel centres. Resizing is linear along each axis, so its gradient adds every
 * dy to the pixels that it was made from, with the same weights.
 */
import * as tf from '@tensorflow/tfjs'

/** Registers both in the place of the backend's own; the JavaScript engine does so when it is created. */
export function mendResizing(): void {
  replace('ResizeBilinearGrad', bilinear)
  replace('ResizeNearestNeighborGrad', nearest)
}

interface Resizing {
  readonly alignCorners: boolean
  readonly halfPixelCenters: boolean
}

/** A pixel of the original and its share in one pixel of the result. */
type Source = readonly [index: number, weight: number]

/** Where on the original axis the pixels of the result are taken from. */
function positions(from: number, to: number, { alignCorners, halfPixelCenters }: Resizing): number[] {
  const scale = alignCorners && to > 1 ? (from - 1) / (to - 1) : from / to
  return Array.from({ length: to }, (_, i) => (halfPixelCenters ? (i + 0.5) * scale - 0.5 : i * scale))
}

function bilinear(from: number, to: number, resizing: Resizing): Source[][] {
  return positions(from, to, resizing).map((position) => {
    const below = Math.max(Math.floor(position), 0)
    const above = Math.min(Math.ceil(position), from - 1)
    const share = position - Math.floor(position)
    return [
      [below, 1 - share],
      [above, share],
    ]
  })
}

function nearest(from: number, to: number, resizing: Resizing): Source[][] {
  const round = resizing.alignCorners ? Math.round : Math.floor
  // Half-pixel centres take the pixel whose area they lie in.
  const shift = resizing.halfPixelCenters ? 0.5 : 0
  return positions(from, to, resizing).map((position) => [
    [Math.min(Math.max(round(position + shift), 0), from - 1), 1],
  ])
}

function replace(kernelName: string, sources: (from: number, to: number, resizing: Resizing) => Source[][]): void {
  tf.unregisterKernel(kernelName, 'cpu')
  tf.registerKernel({
    kernelName,
    backendName: 'cpu',
    kernelFunc: ({ inputs, attrs }) => {
      const [images, dy] = [inputs.images as tf.Tensor4D, inputs.dy as tf.Tensor4D]
      const [batch, height, width, channels] = images.shape
      const [, toHeight, toWidth] = dy.shape
      const [rows, columns] = [height, width].map((from, axis) =>
        sources(from, [toHeight, toWidth][axis]!, attrs as unknown as Resizing),
      )
      const values = dy.dataSync()
      const gradient = new Float32Array(images.size)
      let next = 0
      for (let image = 0; image < batch; image++)
        for (const row of rows!)
          for (const column of columns!)
            for (let channel = 0; channel < channels; channel++) {
              const value = values[next++]!
              for (const [y, rowShare] of row)
                for (const [x, columnShare] of column)
                  gradient[((image * height + y) * width + x) * channels + channel]! += value * rowShare * columnShare
            }
      return tf.tensor(gradient, images.shape)
    },
  })
}
