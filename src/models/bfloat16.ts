// SPDX-License-Identifier: Apache-2.0
/**
 * bfloat16 is the upper half of a float32, rounded to the nearest, ties to even (Intel, "BFLOAT16 – Hardware Numerics
 * Definition", 2018; TensorFlow's DT_BFLOAT16): 8 bits of exponent, so the range stays, and 8 of significand, so a value is
 * off by 1/256 of itself at most. Held as a Uint16Array of its bits.
 */
import assert from 'node:assert/strict'
import { endianness } from 'node:os'
import type { ModelVariable } from './model.ts'

assert.equal(endianness(), 'LE', 'Two halves make a word, the first the lower one')

const infinity = 0x7f80_0000
const nan = 0x7fc0_0000

/** How parameters and gradients lie in memory that is sent or received. */
export type Transfer = 'float32' | 'bfloat16'

/** Of one tensor. Statistics go whole: a step changes them by less than bfloat16 can tell. */
export function transferOf(role: ModelVariable['role'], transfer: Transfer): Transfer {
  return role === 'statistic' ? 'float32' : transfer
}

export function toBfloat16(values: Float32Array, into = new Uint16Array(values.length)): Uint16Array {
  assert.equal(into.length, values.length)
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length)
  for (let index = 0; index < bits.length; index++) into[index] = rounded(bits[index]!) >>> 16
  return into
}

export function fromBfloat16(halves: Uint16Array): Float32Array {
  const values = new Float32Array(halves.length)
  const bits = new Int32Array(values.buffer)
  for (let index = 0; index < halves.length; index++) bits[index] = halves[index]! << 16
  return values
}

/** The nearest in the upper half; what is in the lower is to be cut off. NaN stays one; what is too large becomes infinite. */
function rounded(bits: number): number {
  return (bits & 0x7fff_ffff) > infinity ? nan | bits : (bits + 0x7fff + ((bits >>> 16) & 1)) | 0
}
