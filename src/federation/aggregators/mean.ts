// SPDX-License-Identifier: Apache-2.0
/**
 * The mean over examples: Σ shareᵢ·updateᵢ (McMahan et al. 2017, algorithm 1). Summed in the order of worker indices, so
 * that the same updates give the same bits whoever came first; one update alone passes unchanged.
 */
import * as tf from '@tensorflow/tfjs'
import type { Aggregator } from './aggregator.ts'

export const mean: Aggregator = {
  name: 'mean',
  combine: (updates, shares) =>
    updates.length === 1
      ? updates[0]!
      : updates.map((update, index) => tf.mul(update, shares[index]!)).reduce((sum, part) => tf.add(sum, part)),
}
