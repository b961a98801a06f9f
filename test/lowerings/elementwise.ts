/** Cases of arithmetic, comparison, logic and activations, at values that include ties, zeros, halves and both signs. */
import * as tf from '@tensorflow/tfjs'
import type { Case, Drawn, Sample } from './differential.ts'

type Unary = (x: tf.Tensor) => tf.Tensor
type Binary = (a: tf.Tensor, b: tf.Tensor) => tf.Tensor

function unary(name: string, compute: Unary, low = -2, high = 2, options: Partial<Case> = {}): Case {
  const sample = (s: Sample): Drawn => ({ inputs: [s.floats(s.shape(s.integer(0, 4)), low, high)], compute })
  return { name, sample, gradient: true, ...options }
}

/** Of whole numbers and their halves: where branches meet. */
function atTies(name: string, compute: Unary, gradient = true): Case {
  const halved: Unary = (x) => compute(x.div(2))
  return { name: `${name} at ties`, gradient, sample: (s) => ({ inputs: [s.whole(s.shape(3))], compute: halved }) }
}

function ofIntegers(name: string, compute: Unary, low = -9, high = 9): Case {
  return { name: `${name} of int32`, sample: (s) => ({ inputs: [s.integers(s.shape(3), low, high)], compute }) }
}

/** Of two float tensors that broadcast; with ties where `whole`. */
function binary(name: string, compute: Binary, options: { low?: number; whole?: boolean } & Partial<Case> = {}): Case {
  const { low = -2, whole = false, ...rest } = options
  const sample = (s: Sample): Drawn => {
    const [a, b] = s.broadcastable()
    const draw = (shape: number[]) => (whole ? s.whole(shape) : s.floats(shape, low, low + 4))
    return { inputs: [draw(a), draw(b)], compute }
  }
  return { name, sample, gradient: true, ...rest }
}

function binaryOfIntegers(name: string, compute: Binary, low = -9, high = 9): Case {
  const sample = (s: Sample): Drawn => {
    const [a, b] = s.broadcastable()
    return { inputs: [s.integers(a, low, high), s.integers(b, low, high)], compute }
  }
  return { name: `${name} of int32`, sample }
}

/** TensorFlow.js refuses to differentiate some operations where their operands broadcast. */
function sameShapes(compute: Binary): Binary {
  return (a, b) => {
    const shape = tf.add(a, b).shape
    return compute(tf.broadcastTo(a, shape), tf.broadcastTo(b, shape))
  }
}

/** By a condition that is no function of what is chosen from: comparisons have no gradient. */
function choice(
  name: string,
  choose: (condition: tf.Tensor, a: tf.Tensor, b: tf.Tensor) => tf.Tensor,
  gradient: boolean,
): Case {
  const sample = (s: Sample): Drawn => {
    const shape = s.shape(3)
    return {
      inputs: [s.integers(s.pick([shape, shape.slice(1), [1, 1, shape[2]!]]), 0, 1), s.floats(shape), s.floats(shape)],
      compute: (condition, a, b) => choose(condition!.cast('bool'), a!, b!),
    }
  }
  return { name, sample, gradient }
}

const positive = (b: tf.Tensor) => b.abs().add(tf.scalar(1, b.dtype as 'int32'))
const truths = (x: tf.Tensor) => x.greater(0)

/** The kernel itself, where no operation of TensorFlow.js leads to it with such inputs. */
function kernel(name: string, inputs: tf.NamedTensorMap): tf.Tensor {
  return tf.engine().runKernel(name, inputs) as tf.Tensor
}

const special = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 1.5]

function ofSpecialValues(name: string, compute: Unary): Case {
  const data = Float32Array.from(special)
  return { name, sample: () => ({ inputs: [{ shape: [special.length], dtype: 'float32', data }], compute }) }
}

export const elementwise: readonly Case[] = [
  unary('abs', tf.abs),
  atTies('abs', tf.abs),
  ofIntegers('abs', tf.abs),
  unary('acos', tf.acos, -0.9, 0.9, { tolerance: 1e-4 }),
  unary('acosh', tf.acosh, 1.2, 3, { tolerance: 1e-4 }),
  unary('asin', tf.asin, -0.9, 0.9, { tolerance: 1e-4 }),
  unary('asinh', tf.asinh),
  unary('atan', tf.atan),
  unary('atanh', tf.atanh, -0.9, 0.9, { tolerance: 1e-4 }),
  unary('cos', tf.cos),
  unary('cosh', tf.cosh),
  unary('erf', tf.erf),
  unary('exp', tf.exp),
  ofIntegers('exp', tf.exp, -2, 5),
  unary('expm1', tf.expm1),
  unary('log', tf.log, 0.1, 4),
  unary('log1p', tf.log1p, -0.9, 4),
  unary('neg', tf.neg),
  ofIntegers('neg', tf.neg),
  unary('reciprocal', tf.reciprocal, 0.2, 3),
  unary('rsqrt', tf.rsqrt, 0.2, 3),
  unary('sqrt', tf.sqrt, 0.1, 3),
  unary('square', tf.square),
  ofIntegers('square', tf.square),
  unary('sign', tf.sign),
  atTies('sign', tf.sign),
  ofIntegers('sign', tf.sign),
  unary('sin', tf.sin),
  unary('sinh', tf.sinh),
  unary('tan', tf.tan, -1, 1),
  unary('tanh', tf.tanh),
  unary('ceil', tf.ceil),
  unary('floor', tf.floor),
  unary('round', tf.round),
  atTies('ceil', tf.ceil),
  atTies('floor', tf.floor),
  atTies('round', tf.round),
  ofIntegers('round', tf.round),
  unary('step', (x) => tf.step(x, 0.3)),
  atTies('step', (x) => tf.step(x, -1)),
  ofSpecialValues('step', (x) => tf.step(x, 0.3)),
  unary('clipByValue', (x) => tf.clipByValue(x, -0.7, 1.1)),
  atTies('clipByValue', (x) => tf.clipByValue(x, -1, 0.5)),
  ofIntegers('clipByValue', (x) => tf.clipByValue(x, -3, 4)),
  ofSpecialValues('isFinite', tf.isFinite),
  ofSpecialValues('isInf', tf.isInf),
  ofSpecialValues('isNaN', tf.isNaN),
  unary('cast float32 to int32 and back', (x) => x.mul(3).cast('int32').cast('float32').mul(x)),
  atTies('cast float32 to bool', (x) => x.cast('bool'), false),
  ofIntegers('cast int32 to bool', (x) => x.cast('bool'), -1, 1),
  ofIntegers('cast int32 to float32', (x) => x.cast('float32').div(3)),
  ofIntegers('cast bool to float32', (x) => truths(x).cast('float32')),

  binary('add', tf.add),
  binaryOfIntegers('add', tf.add),
  binary('sub', tf.sub),
  binaryOfIntegers('sub', tf.sub),
  binary('mul', tf.mul),
  binaryOfIntegers('mul', tf.mul),
  binary('div', tf.div, { low: 0.5 }),
  binaryOfIntegers('div, which floors,', (a, b) => tf.div(a, positive(b))),
  binaryOfIntegers('RealDiv, which truncates,', (a, b) => kernel('RealDiv', { a, b: positive(b) })),
  binary('floorDiv', (a, b) => tf.floorDiv(a, positive(b)), { gradient: false }),
  binaryOfIntegers('floorDiv', (a, b) => tf.floorDiv(a, positive(b).neg())),
  binary('mod', (a, b) => tf.mod(a.mul(3), b.sign().mul(b.abs().add(0.5))), { tolerance: 1e-4 }),
  binaryOfIntegers('mod', (a, b) => tf.mod(a, b.mul(2).add(tf.scalar(1, 'int32')))),
  binary('maximum', tf.maximum, { gradient: false }),
  binary('maximum at ties', sameShapes(tf.maximum), { whole: true }),
  binaryOfIntegers('maximum', tf.maximum),
  binary('minimum', tf.minimum, { gradient: false }),
  binary('minimum at ties', sameShapes(tf.minimum), { whole: true }),
  binaryOfIntegers('minimum', tf.minimum),
  binary('pow', tf.pow, { low: 0.2, tolerance: 1e-4 }),
  binaryOfIntegers('pow', tf.pow, 0, 4),
  binary('atan2', tf.atan2),
  binary('squaredDifference', tf.squaredDifference, { gradient: false }),
  binary('squaredDifference of like shapes', sameShapes(tf.squaredDifference)),
  binaryOfIntegers('squaredDifference', tf.squaredDifference),
  binaryOfIntegers('bitwiseAnd', sameShapes(tf.bitwiseAnd)),
  ...[tf.equal, tf.notEqual, tf.greater, tf.greaterEqual, tf.less, tf.lessEqual].flatMap((compare) => [
    binary(compare.name, compare, { whole: true, gradient: false }),
    binaryOfIntegers(compare.name, compare, -2, 2),
    binaryOfIntegers(`${compare.name} of truths`, (a, b) => compare(truths(a), truths(b)), -2, 2),
  ]),
  binaryOfIntegers('logicalAnd', (a, b) => tf.logicalAnd(truths(a), truths(b))),
  binaryOfIntegers('logicalOr', (a, b) => tf.logicalOr(truths(a), truths(b))),
  binaryOfIntegers('logicalXor', (a, b) => tf.logicalXor(truths(a), truths(b))),
  ofIntegers('logicalNot', (x) => tf.logicalNot(truths(x)), -2, 2),
  choice('where', (condition, a, b) => tf.where(condition, a, b), true),
  choice('where of float32 and int32', (condition, a, b) => tf.where(condition, a, b.mul(3).cast('int32')), false),
  choice('where of int32 and float32', (condition, a, b) => tf.where(condition, a.mul(3).cast('int32'), b), false),

  unary('elu', tf.elu),
  atTies('elu', tf.elu),
  unary('leakyRelu', (x) => tf.leakyRelu(x, 0.3)),
  ofIntegers('leakyRelu', (x) => tf.leakyRelu(x, 0.3)),
  unary('relu', tf.relu),
  atTies('relu', tf.relu),
  ofIntegers('relu', tf.relu),
  unary('relu6', (x) => tf.relu6(x.mul(4))),
  unary('selu', tf.selu),
  atTies('selu', tf.selu),
  unary('sigmoid', tf.sigmoid, -6, 6),
  unary('softplus', tf.softplus, -20, 20),
  unary('logSigmoid', tf.logSigmoid),
  {
    name: 'prelu',
    gradient: true,
    sample: (s) => {
      const shape = s.shape(3)
      const alpha = s.floats(s.pick([shape, [shape[2]!], [1, shape[1]!, 1]]))
      return { inputs: [s.floats(shape), alpha], compute: (x, alpha) => tf.prelu(x!, alpha!) }
    },
  },
  unary('softmax', (x) => tf.softmax(x.reshape([-1, x.shape.at(-1) ?? 1]))),
  unary('logSoftmax', (x) => tf.logSoftmax(x.reshape([-1, x.shape.at(-1) ?? 1]))),
]
