// SPDX-License-Identifier: Apache-2.0
/**
 * Scores of predicted clicks: area under the ROC curve, log loss, accuracy, calibration. Each worker sums over its own share
 * of the held-out examples; here sums become scores, so that nobody sees another's examples or predictions.
 */
import assert from 'node:assert/strict'

/** Vectors are histograms, added element by element. */
export type Sums = Readonly<Record<string, number | Float64Array>>

export interface ClickScores {
  /** Of the histograms of logits; NaN without both clicks and others. */
  readonly auc: number
  /** The AUC of the logits themselves is within this of `auc`. */
  readonly aucError: number
  readonly logLoss: number
  readonly accuracy: number
  /** Expected clicks by clicks: 1 is calibrated, more is too optimistic. */
  readonly calibration: number
}

/** Adds sums of the same names; what only one part has is kept. */
export function addSums(parts: Iterable<Sums>): Record<string, number | Float64Array> {
  const total: Record<string, number | Float64Array> = {}
  for (const part of parts) for (const [name, sum] of Object.entries(part)) total[name] = added(name, total[name], sum)
  return total
}

function added(name: string, total: number | Float64Array | undefined, sum: number | Float64Array) {
  if (total === undefined) return typeof sum === 'number' ? sum : sum.slice()
  if (typeof total === 'number' || typeof sum === 'number') {
    assert(typeof total === 'number' && typeof sum === 'number', `${name}: a number here, a histogram there`)
    return total + sum
  }
  assert.equal(sum.length, total.length, `${name}: bins`)
  for (const [bin, count] of sum.entries()) total[bin]! += count
  return total
}

/** From the sums of `dlrm().evaluate`; undefined when they are not of that kind, or nothing was counted. */
export function clickScores(sums: Sums): ClickScores | undefined {
  const { count, correct, logLossSum, predictionSum, labelSum, clickLogits, otherLogits } = sums
  if (!(clickLogits instanceof Float64Array && otherLogits instanceof Float64Array)) return undefined
  if (typeof count !== 'number' || !(count > 0)) return undefined
  const { auc, error } = aucOfHistograms(clickLogits, otherLogits)
  return {
    auc,
    aucError: error,
    logLoss: Number(logLossSum) / count,
    accuracy: Number(correct) / count,
    calibration: Number(predictionSum) / Number(labelSum),
  }
}

/**
 * The probability that a click is scored above another example, a tie counting half. Pairs in one bin are taken for ties:
 * whatever their order within it, the error is at most half the share of such pairs.
 */
export function aucOfHistograms(clicks: Float64Array, others: Float64Array): { auc: number; error: number } {
  assert.equal(clicks.length, others.length, 'two histograms over the same bins')
  let [above, ties, below] = [0, 0, 0]
  let positives = 0
  for (const [bin, count] of clicks.entries()) {
    above += count * below
    ties += count * others[bin]!
    below += others[bin]!
    positives += count
  }
  const pairs = positives * below
  return { auc: (above + ties / 2) / pairs, error: ties / 2 / pairs }
}

/** Exact, ties counted half: by the sum of the ranks of the clicks (Mann and Whitney 1947). Labels are 0 and 1. */
export function exactAuc(scores: ArrayLike<number>, labels: ArrayLike<number>): number {
  assert.equal(scores.length, labels.length, 'one label for each score')
  const order = Uint32Array.from({ length: scores.length }, (_, i) => i).sort((a, b) => scores[a]! - scores[b]!)
  let [rankSum, positives] = [0, 0]
  for (let first = 0; first < order.length; ) {
    let [end, clicks] = [first, 0]
    while (end < order.length && scores[order[end]!] === scores[order[first]!]) clicks += labels[order[end++]!]!
    // Ranks count from 1; those of equal scores are all their mean.
    rankSum += (clicks * (first + 1 + end)) / 2
    positives += clicks
    first = end
  }
  return (rankSum - (positives * (positives + 1)) / 2) / (positives * (scores.length - positives))
}
