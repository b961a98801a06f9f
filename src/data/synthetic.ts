// SPDX-License-Identifier: Apache-2.0
/**
 * Ten classes of made-up images in the very file format of CIFAR-10, for when the real ones cannot be had: five shapes, each
 * striped across or along, in any colours, at any place, on any background, under noise. No class is another's mirror image, so
 * that flips do no harm; some images are too faint to tell, so that nobody scores 100 %. Its list of classes marks the set
 * as synthetic: it can never be taken for CIFAR-10.
 */
import { open, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { RandomStream } from '../models/philox.ts'
import type { EventSink } from '../observability/events.ts'
import { cifar10TestFile, cifar10TrainingFiles, classListFile, maxRecordsPerFile, recordBytes } from './cifar10.ts'
import { placeAnew } from './place-anew.ts'

const shapes = ['disc', 'square', 'triangle', 'ring', 'cross'] as const
const stripes = ['across', 'along'] as const

export const syntheticClasses: readonly string[] = shapes.flatMap((shape) =>
  stripes.map((direction) => `synthetic-${shape}-${direction}`),
)

export interface SyntheticOptions {
  /** Made anew: must be empty if it exists. */
  readonly directory: string
  readonly seed: number
  /** Of each of the six files. */
  readonly recordsPerFile: number
  readonly events?: EventSink
  readonly signal?: AbortSignal
}

/** Six files as CIFAR-10 has them, placed when all are complete. */
export async function writeSynthetic(options: SyntheticOptions): Promise<void> {
  const { seed, recordsPerFile, events, signal } = options
  const directory = resolve(options.directory)
  if (!(Number.isInteger(recordsPerFile) && recordsPerFile >= 1 && recordsPerFile <= maxRecordsPerFile)) {
    throw new RangeError(`records per file: expected 1 to ${maxRecordsPerFile}, got ${recordsPerFile}`)
  }
  await placeAnew(directory, async (unfinished) => {
    const files = [...cifar10TrainingFiles, cifar10TestFile]
    for (const [index, name] of files.entries()) {
      const random = new RandomStream(seed, `synthetic ${name}`)
      const handle = await open(join(unfinished, name), 'wx')
      try {
        for (let first = 0; first < recordsPerFile; first += 100) {
          signal?.throwIfAborted()
          const records = new Uint8Array(Math.min(100, recordsPerFile - first) * recordBytes)
          for (let at = 0; at < records.length; at += recordBytes) {
            const label = (first + at / recordBytes) % syntheticClasses.length
            drawRecord(records.subarray(at, at + recordBytes), label, random)
          }
          await handle.writeFile(records)
          const done = index * recordsPerFile + first + records.length / recordBytes
          events?.({ kind: 'progress', activity: 'prepare-data', done, total: files.length * recordsPerFile })
        }
      } finally {
        await handle.close()
      }
    }
    await writeFile(join(unfinished, classListFile), `${syntheticClasses.join('\n')}\n`)
  })
}

/** Fills one record of 3,073 bytes. */
function drawRecord(record: Uint8Array, label: number, random: RandomStream): void {
  record[0] = label
  const shape = shapes[label >> 1]!
  const alongX = stripes[label & 1] === 'along'
  const between = (low: number, high: number): number => low + (high - low) * random.uniform()
  const colour = (): number[] => [between(0, 255), between(0, 255), between(0, 255)]
  const corners = [colour(), colour(), colour(), colour()]
  const [light, dark] = [colour(), colour()]
  const [centreX, centreY, radius] = [between(11, 21), between(11, 21), between(5, 9)]
  // The stripes' width and offset, and how much of the shape shows.
  const [period, phase, opacity] = [between(3, 5), between(0, 5), between(0.1, 1)]
  for (let y = 0; y < 32; y++) {
    for (let x = 0; x < 32; x++) {
      const visible = isInside(shape, (x - centreX) / radius, (y - centreY) / radius) ? opacity : 0
      const stripe = ((alongX ? y : x) + phase) % period < period / 2 ? light : dark
      for (let channel = 0; channel < 3; channel++) {
        const top = corners[0]![channel]! * (31 - x) + corners[1]![channel]! * x
        const bottom = corners[2]![channel]! * (31 - x) + corners[3]![channel]! * x
        const background = (top * (31 - y) + bottom * y) / 961
        const value = background + visible * (stripe[channel]! - background) + noise(random)
        record[1 + channel * 1024 + y * 32 + x] = Math.min(255, Math.max(0, Math.round(value)))
      }
    }
  }
}

/** x and y in radii from the centre. */
function isInside(shape: (typeof shapes)[number], x: number, y: number): boolean {
  switch (shape) {
    case 'disc':
      return x * x + y * y < 1
    case 'square':
      return Math.max(Math.abs(x), Math.abs(y)) < 0.9
    case 'triangle':
      return y < 0.9 && Math.abs(x) < (y + 1) / 1.8
    case 'ring':
      return x * x + y * y < 1.2 && x * x + y * y > 0.35
    case 'cross':
      return Math.min(Math.abs(x), Math.abs(y)) < 0.35 && Math.max(Math.abs(x), Math.abs(y)) < 1.1
  }
}

/** About normal with deviation 18: the sum of one word's four bytes, whose own deviation is 147.8. */
function noise(random: RandomStream): number {
  const word = random.uint32()
  return (((word & 255) + ((word >>> 8) & 255) + ((word >>> 16) & 255) + (word >>> 24) - 510) * 18) / 147.8
}
