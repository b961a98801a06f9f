// SPDX-License-Identifier: Apache-2.0
/** TensorFlow.js kernel → operations of a TensorFlow graph. */
import type { Lowering } from '../lowering.ts'

const binary =
  (type: string): Lowering =>
  (g, { a, b }) =>
    g.add(type, [a!, b!])[0]!
const unary =
  (type: string): Lowering =>
  (g, { x }) =>
    g.add(type, [x!])[0]!
export const lowerings: ReadonlyMap<string, Lowering> = new Map<string, Lowering>([
  ['Add', binary('AddV2')],
  ['Multiply', binary('Mul')],
  ['Sub', binary('Sub')],
  ['RealDiv', binary('RealDiv')],
  ['Identity', (_, { x }) => x!],
  ['Greater', binary('Greater')],
  [
    'BatchMatMul',
    (g, { a, b }, { transposeA, transposeB }) =>
      g.add('BatchMatMulV2', [a!, b!], {
        adj_x: { bool: transposeA as boolean },
        adj_y: { bool: transposeB as boolean },
      })[0]!,
  ],
  [
    'Reshape',
    (g, { x }, { shape }) =>
      g.add('Reshape', [x!, g.constant(shape as number[], [(shape as number[]).length], 'int32')])[0]!,
  ],
  ['Cast', (g, { x }, { dtype }) => g.add('Cast', [x!], { DstT: { type: dtype as 'int32' } })[0]!],
  [
    'Sum',
    (g, { x }, { axis: given }) => {
      const axis = (given ?? x!.shape.map((_, i) => i)) as number[]
      return g.add('Sum', [x!, g.constant(axis as number[], [(axis as number[]).length], 'int32')])[0]!
    },
  ],
  ['Square', unary('Square')],
  ['Exp', unary('Exp')],
  ['Relu', unary('Relu')],
  ['Step', unary('Sign')],
])
