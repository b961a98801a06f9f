// SPDX-License-Identifier: Apache-2.0
/**
 * The shape of real Criteo rows, for the generator: measured on a uniform sample of 137,139 rows of the Kaggle training file. No row
 * and no value of it is here.
 */

export const clickRate = 0.2568

export interface IntegerShape {
  readonly missing: number
  /** Values at the quantiles 0, 0.5, 0.9, 0.99 and 1 of the rows that have one. */
  readonly quantiles: readonly [number, number, number, number, number]
}

const integer = (missing: number, ...quantiles: IntegerShape['quantiles']): IntegerShape => ({ missing, quantiles })

export const integerShapes: readonly IntegerShape[] = [
  integer(0.451, 0, 1, 9, 39, 425),
  integer(0, -2, 3, 183, 2234, 10255),
  integer(0.213, 0, 6, 44, 216, 65535),
  integer(0.214, 0, 4, 18, 41, 349),
  integer(0.026, 0, 2796, 33560, 345898, 2071071),
  integer(0.223, 0, 32, 278, 1323, 111105),
  integer(0.043, 0, 3, 34, 219, 6498),
  integer(0.001, 0, 7, 34, 48, 1689),
  integer(0.043, 0, 39, 265, 1003, 9465),
  integer(0.451, 0, 1, 1, 3, 7),
  integer(0.043, 0, 1, 6, 26, 123),
  integer(0.765, 0, 0, 2, 19, 193),
  integer(0.214, 0, 4, 20, 49, 1574),
]

export interface CategoryShape {
  readonly missing: number
  /** Of all rows, those that have the commonest value. */
  readonly commonest: number
  /** Values there are: those of the whole training file, where the sample has fewer. */
  readonly values: number
  /**
   * The others follow a Zipf–Mandelbrot law, density (x + offset)^−exponent for x from 0 to `values` − 1, with which a sample of the
   * same size has as many distinct values, and as many of them once, as the real one (fitted; the test says how closely).
   */
  readonly exponent: number
  readonly offset: number
}

const category = (
  missing: number,
  commonest: number,
  values: number,
  exponent: number,
  offset: number,
): CategoryShape => ({ missing, commonest, values, exponent, offset })

export const categoryShapes: readonly CategoryShape[] = [
  category(0.0, 0.5, 1460, 1.7558, 0.6014),
  category(0.0, 0.113, 583, 3.5294, 52.59),
  category(0.034, 0.025, 10131227, 1.0617, 28.49),
  category(0.034, 0.036, 2202608, 1.2624, 53.23),
  category(0.0, 0.674, 305, 2.5667, 1.967),
  category(0.122, 0.396, 11, 1.2, 0.5),
  category(0.0, 0.021, 12517, 3.3124, 2021.0),
  category(0.0, 0.595, 633, 2.0269, 0.817),
  category(0.0, 0.9, 3, 0.163, 0.05),
  category(0.0, 0.222, 93145, 2.3097, 1334.0),
  category(0.0, 0.032, 5683, 3.3607, 680.3),
  category(0.034, 0.025, 8351593, 1.0619, 12.29),
  category(0.0, 0.032, 3194, 3.5077, 672.7),
  category(0.0, 0.349, 26, 0.163, 0.05),
  category(0.0, 0.016, 14992, 3.354, 966.2),
  category(0.034, 0.025, 5461306, 1.1612, 48.98),
  category(0.0, 0.46, 10, 0.163, 0.05),
  category(0.0, 0.032, 5652, 3.3419, 327.4),
  category(0.442, 0.344, 2173, 3.2393, 228.3),
  category(0.442, 0.19, 3, 0.01, 1),
  category(0.034, 0.025, 7046547, 1.0626, 6.156),
  category(0.761, 0.136, 18, 3.1402, 0.2112),
  category(0.0, 0.437, 14, 0.163, 0.05),
  category(0.034, 0.053, 286181, 1.6135, 127.6),
  category(0.442, 0.142, 80, 7.013, 15),
  category(0.442, 0.042, 142572, 1.6767, 230.0),
]
