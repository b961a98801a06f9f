// SPDX-License-Identifier: Apache-2.0
/**
 * Initial values from the initializer that a TensorFlow.js layer states in its configuration, drawn in plain TypeScript: the
 * same numbers for the same seed whatever engine trains. Formulas as in Keras, whose truncated normal keeps the variance that
 * He et al. and Glorot & Bengio ask for (TensorFlow.js's own loses 23 % of it by truncating).
 */
import { CodedError } from '../errors.ts'
import type { RandomStream } from './philox.ts'

export class ModelError extends CodedError<'initializer-unsupported' | 'layer-unsupported'> {}

export interface InitializerConfig {
  readonly className: string
  readonly config: Readonly<Record<string, unknown>>
}

export function drawInitialValues(
  initializer: InitializerConfig,
  shape: readonly number[],
  random: RandomStream,
): Float32Array {
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1))
  const number = (name: string, otherwise: number): number => {
    const value = initializer.config[name]
    return typeof value === 'number' ? value : otherwise
  }
  const fill = (draw: () => number): Float32Array => {
    for (let index = 0; index < values.length; index++) values[index] = draw()
    return values
  }
  switch (initializer.className) {
    case 'Zeros':
      return values
    case 'Ones':
      return values.fill(1)
    case 'Constant':
      return values.fill(number('value', 0))
    case 'RandomUniform': {
      const [low, high] = [number('minval', -0.05), number('maxval', 0.05)]
      return fill(() => low + (high - low) * random.uniform())
    }
    case 'RandomNormal': {
      const [mean, deviation] = [number('mean', 0), number('stddev', 0.05)]
      return fill(() => mean + deviation * random.normal())
    }
    case 'TruncatedNormal': {
      const [mean, deviation] = [number('mean', 0), number('stddev', 0.05)]
      return fill(() => mean + deviation * truncatedNormal(random))
    }
    case 'VarianceScaling': {
      const variance = number('scale', 1) / fan(shape, initializer.config.mode)
      if (initializer.config.distribution === 'uniform') {
        const limit = Math.sqrt(3 * variance)
        return fill(() => limit * (2 * random.uniform() - 1))
      }
      const deviation = Math.sqrt(variance) / deviationOfTruncatedNormal
      return fill(() => deviation * truncatedNormal(random))
    }
    case 'Identity':
      for (let row = 0; row < (shape[0] ?? 0); row++) values[row * (shape[1] ?? 1) + row] = number('gain', 1)
      return values
    case 'Orthogonal':
      return orthogonal(values, shape, number('gain', 1), random)
    default:
      throw new ModelError(
        'initializer-unsupported',
        `expected an initializer of TensorFlow.js, got ${initializer.className}`,
        { hint: "use a built-in initializer, or start from the model's own values (initial: 'as-built')" },
      )
  }
}

/** Standard deviation of a standard normal cut off at ±2. */
const deviationOfTruncatedNormal = 0.87962566103423978

function truncatedNormal(random: RandomStream): number {
  let value = random.normal()
  while (Math.abs(value) > 2) value = random.normal()
  return value
}

/** Inputs and outputs of one unit; of a convolution, those of its whole receptive field. */
function fan(shape: readonly number[], mode: unknown): number {
  const receptiveField = shape.slice(0, -2).reduce((product, size) => product * size, 1)
  const fanIn = (shape.at(-2) ?? shape.at(-1) ?? 1) * receptiveField
  const fanOut = (shape.at(-1) ?? 1) * receptiveField
  if (mode === 'fanOut') return fanOut
  return mode === 'fanAvg' ? (fanIn + fanOut) / 2 : fanIn
}

/** Rows, or columns if those are fewer, made orthonormal by Gram–Schmidt, twice for float accuracy. */
function orthogonal(values: Float32Array, shape: readonly number[], gain: number, random: RandomStream): Float32Array {
  const columns = shape.at(-1) ?? 1
  const rows = values.length / columns
  const [count, length] = [Math.min(rows, columns), Math.max(rows, columns)]
  const basis: Float64Array[] = []
  while (basis.length < count) {
    const vector = Float64Array.from({ length }, () => random.normal())
    for (let pass = 0; pass < 2; pass++) {
      for (const other of basis) {
        const overlap = vector.reduce((sum, value, index) => sum + value * other[index]!, 0)
        for (let index = 0; index < length; index++) vector[index]! -= overlap * other[index]!
      }
    }
    const norm = Math.hypot(...vector)
    basis.push(vector.map((value) => value / norm))
  }
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = rows < columns ? basis[row]![column]! : basis[column]![row]!
      values[row * columns + column] = gain * value
    }
  }
  return values
}
