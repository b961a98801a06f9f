// SPDX-License-Identifier: Apache-2.0
/** Learning rates: pure functions of the number of updates that the model has seen, counted from 0. */
import assert from 'node:assert/strict'

export type Schedule = (update: number) => number

export function constant(rate: number): Schedule {
  return () => rate
}

/** `rate`, times `factor` from each boundary on (He et al. 2016: ×0.1 at epochs 91, 136, 182). */
export function steps(options: { rate: number; boundaries: readonly number[]; factor: number }): Schedule {
  const { rate, boundaries, factor } = options
  return (update) => rate * factor ** boundaries.filter((boundary) => update >= boundary).length
}

/** Half a cosine from `rate` at update 0 to `finalRate` at `updates` and after (Loshchilov and Hutter 2017, no restarts). */
export function cosine(options: { rate: number; updates: number; finalRate?: number }): Schedule {
  const { rate, updates, finalRate = 0 } = options
  assert(updates > 0)
  return (update) => {
    const progress = Math.min(update / updates, 1)
    return finalRate + ((rate - finalRate) * (1 + Math.cos(Math.PI * progress))) / 2
  }
}

/**
 * Multiplies `then` by a factor that rises from 1/`updates` at update 0 to 1 at update `updates` − 1 (Goyal et al. 2017).
 * `then` runs on the same count: its boundaries do not shift.
 */
export function warmUp(options: { updates: number }, then: Schedule): Schedule {
  return (update) => then(update) * Math.min((update + 1) / options.updates, 1)
}
