// SPDX-License-Identifier: Apache-2.0
/** Kinds of numbers that fields of a job take. */
import * as v from 'valibot'

export const count = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 31 - 1))
export const countOrZero = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 31 - 1))
export const positive = v.pipe(v.number(), v.finite(), v.gtValue(0))
export const nonNegative = v.pipe(v.number(), v.finite(), v.minValue(0))
export const fraction = v.pipe(v.number(), v.minValue(0), v.maxValue(1))
