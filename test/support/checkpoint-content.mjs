/** Checkpoints whose content follows from their step. */

export const storeOptions = (directory) => ({
  directory,
  key: new Uint8Array(32).fill(7),
  context: { jobDigest: new Uint8Array(32).fill(3), server: 0, servers: 1 },
  keep: 3,
  rewriteBelowBytes: 0,
})

const width = 16

/** Every seventh step changes many rows, the others few. */
export function* changedRows(step) {
  const rows = step % 7 === 0 ? 4000 : 150
  for (const table of ['users', 'items']) {
    const ids = Uint32Array.from({ length: rows }, (_, row) => (step * 101 + row * 3) % 20_011)
    const values = new Float32Array(rows * width * 2)
    for (const [row, id] of ids.entries()) values.fill(step + id / 32_768, row * width * 2, (row + 1) * width * 2)
    yield { table, width, slots: ['sum'], ids, values }
  }
}

export const contentOf = (step) => ({
  step,
  header: { step, positions: [step, 2 * step] },
  tensors: [{ name: 'kernel', shape: [100, 50], data: new Float32Array(5000).fill(step + 0.5) }],
  blobs: new Map([['vocabulary', Buffer.alloc(step % 1000, step)]]),
})
