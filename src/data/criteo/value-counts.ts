// SPDX-License-Identifier: Apache-2.0
/** 32-bit values and how often each was seen, 12 bytes a slot: an open-addressing table that doubles when it is three quarters full. */

export class ValueCounts {
  #values = new Uint32Array(1024)
  /** 0: the slot is empty. */
  #counts = new Uint32Array(1024)
  #owners = new Uint32Array(1024)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** `owners`: how many more parties hold it. Counts stop at 2^32 − 1. */
  add(value: number, count = 1, owners = 0): void {
    if (this.#size >= this.#values.length * 0.75) this.#grow()
    const slot = slotOf(this.#values, this.#counts, value)
    if (this.#counts[slot] === 0) {
      this.#values[slot] = value
      this.#size++
    }
    this.#counts[slot] = Math.min(0xffffffff, this.#counts[slot]! + count)
    this.#owners[slot] = this.#owners[slot]! + owners
  }

  *[Symbol.iterator](): Generator<{ readonly value: number; readonly count: number; readonly owners: number }> {
    for (let slot = 0; slot < this.#values.length; slot++) {
      const count = this.#counts[slot]!
      if (count > 0) yield { value: this.#values[slot]!, count, owners: this.#owners[slot]! }
    }
  }

  /** Ascending. */
  sortedValues(): Uint32Array {
    const values = new Uint32Array(this.#size)
    let index = 0
    for (const { value } of this) values[index++] = value
    return values.sort()
  }

  countOf(value: number): number {
    return this.#counts[slotOf(this.#values, this.#counts, value)]!
  }

  #grow(): void {
    const [values, counts, owners] = [this.#values, this.#counts, this.#owners]
    this.#values = new Uint32Array(values.length * 2)
    this.#counts = new Uint32Array(values.length * 2)
    this.#owners = new Uint32Array(values.length * 2)
    for (let slot = 0; slot < values.length; slot++) {
      if (counts[slot] === 0) continue
      const place = slotOf(this.#values, this.#counts, values[slot]!)
      this.#values[place] = values[slot]!
      this.#counts[place] = counts[slot]!
      this.#owners[place] = owners[slot]!
    }
  }
}

/** Where `value` is, or belongs: the first slot from its hash on that holds it or is empty (`used` 0). */
function slotOf(values: Uint32Array, used: Uint32Array, value: number): number {
  const mask = values.length - 1
  let slot = mixed(value) & mask
  while (used[slot] !== 0 && values[slot] !== value) slot = (slot + 1) & mask
  return slot
}

/** A bijection of 32-bit words that spreads every bit: the finaliser of MurmurHash3 (Appleby, public domain). */
export function mixed(word: number): number {
  let hash = word
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
