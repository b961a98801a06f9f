// SPDX-License-Identifier: Apache-2.0
/** Splits streams of bytes into lines in bounded memory, however long a line of a hostile file is. */

/** Of a good line about 450 bytes. */
export const maximumLineBytes = 4096

export interface LineReceiver {
  /** `bytes` from `start` to `end` is valid during the call only. */
  line(bytes: Uint8Array, start: number, end: number): void
  /** A line above the bound, told once, when its end was seen. */
  overlong(): void
}

export class LineSplitter {
  readonly #receiver: LineReceiver
  readonly #carried = new Uint8Array(maximumLineBytes)
  #length = 0
  #isOverlong = false

  constructor(receiver: LineReceiver) {
    this.#receiver = receiver
  }

  push(chunk: Uint8Array): void {
    let start = 0
    while (true) {
      const end = chunk.indexOf(10, start)
      if (end < 0) break
      if (this.#length === 0 && !this.#isOverlong && end - start <= maximumLineBytes) {
        this.#receiver.line(chunk, start, end)
      } else {
        this.#carry(chunk, start, end)
        this.#flush()
      }
      start = end + 1
    }
    this.#carry(chunk, start, chunk.length)
  }

  /** A last line without a line feed counts. */
  end(): void {
    if (this.#length > 0 || this.#isOverlong) this.#flush()
  }

  #carry(chunk: Uint8Array, start: number, end: number): void {
    if (this.#isOverlong) return
    if (this.#length + end - start > maximumLineBytes) {
      this.#isOverlong = true
      return
    }
    this.#carried.set(chunk.subarray(start, end), this.#length)
    this.#length += end - start
  }

  #flush(): void {
    const length = this.#length
    const isOverlong = this.#isOverlong
    this.#length = 0
    this.#isOverlong = false
    if (isOverlong) this.#receiver.overlong()
    else this.#receiver.line(this.#carried, 0, length)
  }
}
