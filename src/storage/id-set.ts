// SPDX-License-Identifier: Apache-2.0
/** A set of 32-bit row ids: a bit each, in pages that are made when first touched (at most an eighth of a byte a row of the table). */

const idsPerPage = 1 << 16

export class IdSet {
  readonly #pages: (Uint8Array | undefined)[] = []

  /** Whether the id was new. */
  add(id: number): boolean {
    const pageIndex = Math.floor(id / idsPerPage)
    let page = this.#pages[pageIndex]
    if (page === undefined) {
      page = new Uint8Array(idsPerPage / 8)
      this.#pages[pageIndex] = page
    }
    const at = (id % idsPerPage) >>> 3
    const bit = 1 << (id & 7)
    const isNew = (page[at]! & bit) === 0
    page[at]! |= bit
    return isNew
  }
}
