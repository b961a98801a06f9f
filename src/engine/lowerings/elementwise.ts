// SPDX-License-Identifier: Apache-2.0
/** Arithmetic, comparison, logic and activations: kernels whose every element depends on the elements at its place. */
import type * as tf from '@tensorflow/tfjs'
import type { GraphBuilder, GraphOutput, Lowering } from '../lowering.ts'
import { cast, type LoweringEntries, lowering, node, same, scalar } from './nodes.ts'

const unary = (type: string): Lowering => same(type, 'x')
const binary = (type: string): Lowering => same(type, 'a', 'b')

/** TensorFlow.js gives these the type of their input and drops the fraction of an int32's; TensorFlow knows floats only. */
function real(type: string): Lowering {
  return (graph, { x }) => cast(graph, node(graph, type, [cast(graph, x!, 'float32')]), x!.dtype)
}

/** An integer is its own floor, ceiling and rounding; TensorFlow refuses it. */
function rounding(type: string): Lowering {
  return (graph, { x }) => (x!.dtype === 'float32' ? node(graph, type, [x!]) : x!)
}

/** Computed of the float32 value, whatever the input is; what comes out is the operation's own type. */
function ofFloat(type: string): Lowering {
  return (graph, { x }) => node(graph, type, [cast(graph, x!, 'float32')])
}

/** TensorFlow does not order booleans; TensorFlow.js does, as 0 and 1. */
function comparison(type: string): Lowering {
  const ordered = (graph: GraphBuilder, x: GraphOutput) => (x.dtype === 'bool' ? cast(graph, x, 'int32') : x)
  return (graph, { a, b }) => node(graph, type, [ordered(graph, a!), ordered(graph, b!)])
}

/** x where it is not negative, alpha · x where it is: Prelu, whose alpha is learnt. */
export function prelu(graph: GraphBuilder, x: GraphOutput, alpha: GraphOutput): GraphOutput {
  const negative = node(graph, 'Less', [x, scalar(graph, 0, 'float32')])
  return node(graph, 'SelectV2', [negative, node(graph, 'Mul', [alpha, x]), x])
}

export function leakyRelu(graph: GraphBuilder, x: GraphOutput, alpha: number): GraphOutput {
  return node(graph, 'LeakyRelu', [cast(graph, x, 'float32')], { alpha: { float: alpha } })
}

/** Division of two int32 tensors drops the fraction; `tf.div` floors instead, and uses FloorDiv for it. */
const realDiv: Lowering = (graph, { a, b }) => node(graph, a!.dtype === 'int32' ? 'TruncateDiv' : 'RealDiv', [a!, b!])

/** 1 above zero, alpha elsewhere, not a number where x is none. */
const step = lowering<tf.StepAttrs>((graph, { x }, { alpha }) => {
  const number = (value: number) => scalar(graph, value, 'float32')
  const input = cast(graph, x!, 'float32')
  const below = node(graph, 'SelectV2', [node(graph, 'IsNan', [input]), input, number(alpha)])
  const positive = node(graph, 'Greater', [input, number(0)])
  return cast(graph, node(graph, 'SelectV2', [positive, number(1), below]), x!.dtype)
})

const clipByValue = lowering<tf.ClipByValueAttrs>((graph, { x }, { clipValueMin, clipValueMax }) =>
  node(graph, 'ClipByValue', [x!, scalar(graph, clipValueMin, x!.dtype), scalar(graph, clipValueMax, x!.dtype)]),
)

/** Both branches take the higher of their types. `tf.where` has already broadcast them. */
const select: Lowering = (graph, { condition, t, e }) => {
  const dtype = t!.dtype === 'float32' || e!.dtype === 'float32' ? 'float32' : t!.dtype === 'bool' ? e!.dtype : t!.dtype
  return node(graph, 'SelectV2', [condition!, cast(graph, t!, dtype), cast(graph, e!, dtype)])
}

export const elementwise: LoweringEntries = [
  ['Abs', unary('Abs')],
  ['Acos', real('Acos')],
  ['Acosh', real('Acosh')],
  ['Asin', real('Asin')],
  ['Asinh', real('Asinh')],
  ['Atan', real('Atan')],
  ['Atanh', real('Atanh')],
  ['Cos', real('Cos')],
  ['Cosh', real('Cosh')],
  ['Erf', real('Erf')],
  ['Exp', ofFloat('Exp')],
  ['Expm1', real('Expm1')],
  ['Log', real('Log')],
  ['Log1p', real('Log1p')],
  ['Neg', unary('Neg')],
  ['Reciprocal', real('Reciprocal')],
  ['Rsqrt', real('Rsqrt')],
  ['Sign', unary('Sign')],
  ['Sin', real('Sin')],
  ['Sinh', real('Sinh')],
  ['Sqrt', real('Sqrt')],
  ['Square', unary('Square')],
  ['Tan', real('Tan')],
  ['Ceil', rounding('Ceil')],
  ['Floor', rounding('Floor')],
  // TensorFlow's Round is half to even, as TensorFlow.js's.
  ['Round', rounding('Round')],
  ['Step', step],
  ['ClipByValue', clipByValue],
  ['Cast', lowering<tf.CastAttrs>((graph, { x }, { dtype }) => cast(graph, x!, dtype as 'float32' | 'int32' | 'bool'))],
  ['IsFinite', ofFloat('IsFinite')],
  ['IsInf', ofFloat('IsInf')],
  ['IsNan', ofFloat('IsNan')],

  ['Add', binary('AddV2')],
  ['Sub', binary('Sub')],
  ['Multiply', binary('Mul')],
  ['RealDiv', realDiv],
  // An int32 even of floats.
  ['FloorDiv', (graph, { a, b }) => cast(graph, node(graph, 'FloorDiv', [a!, b!]), 'int32')],
  // The result has the sign of the divisor.
  ['Mod', binary('FloorMod')],
  ['Maximum', binary('Maximum')],
  ['Minimum', binary('Minimum')],
  ['Pow', binary('Pow')],
  ['Atan2', binary('Atan2')],
  ['SquaredDifference', binary('SquaredDifference')],
  ['BitwiseAnd', binary('BitwiseAnd')],

  ['Equal', binary('Equal')],
  ['NotEqual', binary('NotEqual')],
  ['Greater', comparison('Greater')],
  ['GreaterEqual', comparison('GreaterEqual')],
  ['Less', comparison('Less')],
  ['LessEqual', comparison('LessEqual')],
  ['LogicalAnd', binary('LogicalAnd')],
  ['LogicalOr', binary('LogicalOr')],
  ['LogicalNot', unary('LogicalNot')],
  ['Select', select],

  ['Elu', real('Elu')],
  ['EluGrad', same('EluGrad', 'dy', 'y')],
  ['LeakyRelu', lowering<tf.LeakyReluAttrs>((graph, { x }, { alpha }) => leakyRelu(graph, x!, alpha))],
  ['Prelu', (graph, { x, alpha }) => prelu(graph, cast(graph, x!, 'float32'), cast(graph, alpha!, 'float32'))],
  ['Relu', unary('Relu')],
  ['Relu6', unary('Relu6')],
  ['Selu', real('Selu')],
  ['Sigmoid', real('Sigmoid')],
  ['Softplus', real('Softplus')],
  ['Tanh', real('Tanh')],
  ['Softmax', (graph, { logits }) => node(graph, 'Softmax', [logits!])],
]
