// SPDX-License-Identifier: Apache-2.0
/** Criteo rows by way of their cache: made where there is none, where it is damaged, and where the data are others by now. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { RandomStream } from '../../models/philox.ts'
import { DataError } from '../dataset.ts'
import type { CriteoSource } from './criteo-source.ts'
import { malformedAbove } from './read-rows.ts'
import { type CriteoRows, openRowCache, writeRowCache } from './row-cache.ts'

export interface OpenCriteoOptions {
  readonly sources: readonly CriteoSource[]
  readonly cacheDirectory: string
  /** How many malformed lines are left out before the data are refused. */
  readonly malformedLines: number
  readonly maximumMemoryBytes?: number
  readonly signal?: AbortSignal
}

export async function openCriteo({ sources, cacheDirectory, ...options }: OpenCriteoOptions): Promise<CriteoRows> {
  const identity = sources.map(({ name, identity }) => ({ name, identity }))
  const key = createHash('sha256').update(JSON.stringify(identity)).digest('hex')
  const path = join(cacheDirectory, `criteo-${key}.rows`)
  const rows = await openRowCache(path, options).catch((error: unknown) => {
    if (error instanceof DataError && error.code === 'data-cache-damaged') return undefined
    throw error
  })
  if (rows !== undefined) {
    // The cache may stem from a job that allowed more of them.
    if (rows.malformed.count <= options.malformedLines) return rows
    await rows.close()
    throw malformedAbove(options.malformedLines, rows.malformed.first)
  }
  await writeRowCache(path, { sources, ...options })
  return openRowCache(path, options)
}

export interface HeldOutOptions {
  readonly scheme: 'first' | 'last' | 'random'
  readonly fraction: number
  readonly seed: number
}

/** Ascending row numbers; every row is in one of both, and neither is empty. */
export function splitHeldOut(
  rows: number,
  { scheme, fraction, seed }: HeldOutOptions,
): { readonly training: Uint32Array; readonly heldOut: Uint32Array } {
  if (rows < 2) {
    throw new DataError('data-empty', `expected at least 2 rows, one to train and one to hold out, got ${rows}`, {
      hint: 'give this worker more data',
    })
  }
  const held = heldOutRows(rows, fraction)
  const order =
    scheme === 'random'
      ? new RandomStream(seed, 'held-out rows').permutation(rows)
      : Uint32Array.from({ length: rows }, (_, row) => row)
  const [first, end] = scheme === 'last' ? [rows - held, rows] : [0, held]
  const rest = new Uint32Array(rows - held)
  rest.set(order.subarray(0, first))
  rest.set(order.subarray(end), first)
  return { training: rest.sort(), heldOut: order.slice(first, end).sort() }
}

/** How many of so many rows are held out. */
export function heldOutRows(rows: number, fraction: number): number {
  return Math.min(rows - 1, Math.max(1, Math.floor(rows * fraction)))
}
