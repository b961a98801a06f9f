// SPDX-License-Identifier: Apache-2.0
/**
 * How a window of a convolution or pooling lies over its input. TensorFlow.js pads by `same`, `valid`, a number, or
 * numbers for each side, and rounds the number of windows down, to nearest or up; only the first two are TensorFlow's. For
 * the others the input is first padded or cropped to exactly what the windows cover, and then `valid` fits.
 */
import * as tf from '@tensorflow/tfjs'
import type { GraphBuilder, GraphOutput } from '../lowering.ts'
import { pad, slice } from './arrays.ts'

type Padding = 'valid' | 'same' | number | tf.backend_util.ExplicitPadding
type Sizes = readonly number[] | number

interface WindowAttributes {
  readonly strides: Sizes
  readonly pad: Padding
  /** Layers give null for none. */
  readonly dilations?: Sizes | null | undefined
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil' | undefined
  readonly depthwise?: boolean
}

/** Sizes along the spatial axes: [height, width] or [depth, height, width]. */
export interface Window {
  readonly size: readonly number[]
  readonly strides: readonly number[]
  readonly dilations: readonly number[]
  readonly padding: 'SAME' | 'VALID'
  /** The shape of the input once it fits. */
  readonly fitted: readonly number[]
  fit(graph: GraphBuilder, x: GraphOutput, value?: number): GraphOutput
  /** Brings a gradient of the fitted input back to the input's shape: what lay outside falls away. */
  unfit(graph: GraphBuilder, gradient: GraphOutput): GraphOutput
}

/** Of a convolution over [batch, height, width, channels] or [batch, depth, height, width, channels]. */
export function convolutionWindow(
  shape: readonly number[],
  filterShape: readonly number[],
  { strides, pad, dilations: given, dimRoundingMode, depthwise }: WindowAttributes,
): Window {
  const dilations = given ?? 1
  const { computeConv2DInfo, computeConv3DInfo } = tf.backend_util
  if (shape.length === 4) {
    const [step, spread] = [strides as [number, number], dilations as [number, number]]
    const [input, filter] = [[...shape] as Shape4D, [...filterShape] as Shape4D]
    return window2D(shape, computeConv2DInfo(input, filter, step, spread, pad, dimRoundingMode, depthwise))
  }
  const [step, spread] = [strides as [number, number, number], dilations as [number, number, number]]
  const [input, filter] = [[...shape] as Shape5D, [...filterShape] as Shape5D]
  return window3D(shape, computeConv3DInfo(input, filter, step, spread, pad as 'same' | 'valid'))
}

/** Of a pooling. With `alwaysFit`, `same` too is laid around the input as zeros. */
export function poolingWindow(
  shape: readonly number[],
  filterSize: Sizes,
  { strides, pad, dimRoundingMode }: WindowAttributes,
  alwaysFit = false,
): Window {
  const { computePool2DInfo, computePool3DInfo } = tf.backend_util
  if (shape.length === 4) {
    const [size, step] = [filterSize as [number, number], strides as [number, number]]
    return window2D(shape, computePool2DInfo([...shape] as Shape4D, size, step, 1, pad, dimRoundingMode), alwaysFit)
  }
  const [size, step] = [filterSize as [number, number, number], strides as [number, number, number]]
  const named = pad as 'same' | 'valid' | number
  return window3D(shape, computePool3DInfo([...shape] as Shape5D, size, step, 1, named, dimRoundingMode), alwaysFit)
}

type Shape4D = [number, number, number, number]
type Shape5D = [number, number, number, number, number]

function window2D(shape: readonly number[], info: tf.backend_util.Conv2DInfo, alwaysFit = false): Window {
  return windowOf(shape, info.padInfo.type, alwaysFit, [
    axis(info.filterHeight, info.strideHeight, info.dilationHeight, info.outHeight, info.padInfo.top),
    axis(info.filterWidth, info.strideWidth, info.dilationWidth, info.outWidth, info.padInfo.left),
  ])
}

function window3D(shape: readonly number[], info: tf.backend_util.Conv3DInfo, alwaysFit = false): Window {
  return windowOf(shape, info.padInfo.type, alwaysFit, [
    axis(info.filterDepth, info.strideDepth, info.dilationDepth, info.outDepth, info.padInfo.front),
    axis(info.filterHeight, info.strideHeight, info.dilationHeight, info.outHeight, info.padInfo.top),
    axis(info.filterWidth, info.strideWidth, info.dilationWidth, info.outWidth, info.padInfo.left),
  ])
}

function axis(size: number, stride: number, dilation: number, windows: number, before: number) {
  const covered = (windows - 1) * stride + (size - 1) * dilation + 1
  return { size, stride, dilation, before, covered }
}

function windowOf(
  shape: readonly number[],
  type: string,
  alwaysFit: boolean,
  axes: readonly ReturnType<typeof axis>[],
): Window {
  const placement = {
    size: axes.map(({ size }) => size),
    strides: axes.map(({ stride }) => stride),
    dilations: axes.map(({ dilation }) => dilation),
  }
  const unchanged = (_: GraphBuilder, x: GraphOutput) => x
  const native = { ...placement, fitted: shape, fit: unchanged, unfit: unchanged }
  // In three dimensions TensorFlow.js skips the first element where a stride is longer than its window.
  if (type === 'SAME' && !alwaysFit && axes.every(({ before }) => before >= 0)) return { ...native, padding: 'SAME' }
  // Nothing is padded, yet `valid` fits only if it makes as many windows: not when their number was rounded up.
  const fits = axes.every(({ stride, covered }, i) => covered <= shape[i + 1]! && shape[i + 1]! < covered + stride)
  if (type === 'VALID' && fits) return { ...native, padding: 'VALID' }
  // Before and after each axis; where the windows do not reach the ends of the input, these are negative: cropped.
  const none = [0, 0] as const
  const margins = [
    none,
    ...axes.map(({ before, covered }, i) => [before, covered - shape[i + 1]! - before] as const),
    none,
  ]
  const grown = margins.map((margin) => margin.map((size) => Math.max(size, 0)))
  const cropped = margins.map((margin) => margin.map((size) => Math.max(-size, 0)))
  const fitted = shape.map((size, i) => size + margins[i]![0] + margins[i]![1])
  const starts = (margin: readonly (readonly number[])[]) => margin.map(([before]) => before!)
  return {
    ...placement,
    padding: 'VALID',
    fitted,
    fit: (graph, x, value) => slice(graph, pad(graph, x, grown, value), starts(cropped), fitted),
    unfit: (graph, gradient) => slice(graph, pad(graph, gradient, cropped), starts(grown), shape),
  }
}
