// SPDX-License-Identifier: Apache-2.0
/**
 * Which synthetic rows are clicked: a logistic model with an effect of every common value, a curve over the logarithm of every
 * integer, and products of hidden vectors of pairs of columns, which is what a factorisation in the manner of DLRM can learn. Rare values
 * have no effect of their own: nobody could learn it from the few rows that have them. Standard deviation of the logit and mean are
 * scaled so that the best possible AUC is near 0.8 and the click rate is that of the real data.
 */
import { RandomStream } from '../../models/philox.ts'
import { categoryColumns, integerColumns } from './criteo-line.ts'
import { clickRate } from './shape.ts'

/** A row before it is written: integers (NaN: missing) and ranks of the categorical values, commonest first (−1: missing). */
export interface DrawnRow {
  readonly integers: Float64Array
  readonly ranks: Int32Array
}

const effectRanks = 1000
const vectorWidth = 4
const pairs = 12
/** Logits with this deviation and mean rate give an AUC near 0.8. */
const logitDeviation = 1.32
/** Share of the logit's deviation, before it is scaled. */
const strength = { values: 1, integers: 0.5, pairs: 0.6 }
const calibrationRows = 20_000

export class ClickModel {
  /** By column: of missing, then of ranks 0 to `effectRanks` − 1. */
  readonly #values: readonly Float64Array[]
  readonly #curves: readonly { readonly slope: number; readonly bend: number; readonly centre: number }[]
  readonly #pairs: readonly { readonly first: number; readonly second: number }[]
  readonly #vectors: readonly Float64Array[]
  #scale = 1
  #bias = 0

  /** `draw` makes rows that the model is calibrated on. */
  constructor(seed: number, draw: () => DrawnRow) {
    const random = new RandomStream(seed, 'criteo click model')
    // The effect fades with the rank: rank 100 has half of it, the last ones next to none.
    const fade = (rank: number): number => 1 / (1 + (Math.max(0, rank) / 100) ** 2)
    this.#values = Array.from({ length: categoryColumns }, () =>
      Float64Array.from({ length: effectRanks + 1 }, (_, index) => random.normal() * fade(index - 1) * strength.values),
    )
    this.#curves = Array.from({ length: integerColumns }, () => ({
      slope: random.normal() * strength.integers,
      bend: 0.3 * random.normal() * strength.integers,
      centre: 1 + 3 * random.uniform(),
    }))
    this.#pairs = Array.from({ length: pairs }, () => {
      const first = random.below(categoryColumns)
      return { first, second: (first + 1 + random.below(categoryColumns - 1)) % categoryColumns }
    })
    this.#vectors = Array.from({ length: categoryColumns }, () =>
      Float64Array.from(
        { length: (effectRanks + 1) * vectorWidth },
        (_, index) =>
          random.normal() * fade(Math.floor(index / vectorWidth) - 1) * Math.sqrt(strength.pairs / vectorWidth),
      ),
    )
    this.#calibrate(Float64Array.from({ length: calibrationRows }, () => this.#score(draw())))
  }

  probability(row: DrawnRow): number {
    return 1 / (1 + Math.exp(-(this.#bias + this.#scale * this.#score(row))))
  }

  #score({ integers, ranks }: DrawnRow): number {
    let score = 0
    for (let column = 0; column < integerColumns; column++) {
      const value = integers[column]!
      const { slope, bend, centre } = this.#curves[column]!
      const x = value > 0 ? (Math.log1p(value) - centre) / 2 : -centre / 2
      score += slope * x + bend * x * x
    }
    for (let column = 0; column < categoryColumns; column++) {
      const rank = ranks[column]!
      if (rank < effectRanks) score += this.#values[column]![rank + 1]!
    }
    for (const { first, second } of this.#pairs) {
      const [left, right] = [ranks[first]!, ranks[second]!]
      if (left >= effectRanks || right >= effectRanks) continue
      for (let index = 0; index < vectorWidth; index++) {
        score +=
          this.#vectors[first]![(left + 1) * vectorWidth + index]! *
          this.#vectors[second]![(right + 1) * vectorWidth + index]!
      }
    }
    return score
  }

  #calibrate(scores: Float64Array): void {
    const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length
    const variance = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) / scores.length
    this.#scale = logitDeviation / Math.sqrt(variance)
    let [low, high] = [-20 - mean * this.#scale, 20 - mean * this.#scale]
    for (let step = 0; step < 50; step++) {
      this.#bias = (low + high) / 2
      let rate = 0
      for (const score of scores) rate += 1 / (1 + Math.exp(-(this.#bias + this.#scale * score)))
      if (rate / scores.length < clickRate) low = this.#bias
      else high = this.#bias
    }
  }
}

const bins = 65_536

/** Scores of the probabilities that the labels were drawn with: what no model can beat but by chance. */
export class BayesScores {
  readonly #clicked = new Float64Array(bins)
  readonly #others = new Float64Array(bins)
  #rows = 0
  #clicks = 0
  #loss = 0
  #correct = 0

  add(probability: number, label: number): void {
    const bin = Math.min(bins - 1, Math.floor(probability * bins))
    const counts = label === 1 ? this.#clicked : this.#others
    counts[bin]!++
    this.#rows++
    this.#clicks += label
    this.#loss -= Math.log(label === 1 ? probability : 1 - probability)
    if ((probability >= 0.5 ? 1 : 0) === label) this.#correct++
  }

  /** Probabilities in one of 65,536 intervals count as equal: the AUC is right to about 10⁻⁵. */
  result(): { rows: number; clickRate: number; auc: number; logLoss: number; accuracy: number } {
    let below = 0
    let ordered = 0
    for (let bin = 0; bin < bins; bin++) {
      ordered += this.#clicked[bin]! * (below + this.#others[bin]! / 2)
      below += this.#others[bin]!
    }
    const [rows, clicks] = [this.#rows, this.#clicks]
    return {
      rows,
      clickRate: clicks / rows,
      // Without rows of both kinds there is nothing to order.
      auc: clicks === 0 || clicks === rows ? 0.5 : ordered / clicks / (rows - clicks),
      logLoss: this.#loss / rows,
      accuracy: this.#correct / rows,
    }
  }
}
