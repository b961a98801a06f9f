// SPDX-License-Identifier: Apache-2.0
/** `cloister data fetch cifar10 | inspect | synthesize cifar10`: what each does and says, for people or as JSON. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { openCifar10, recordBytes } from '../data/cifar10.ts'
import { cifar10Digests, fetchCifar10 } from '../data/fetch.ts'
import { type DataSource, identifyImages, type LocatedImages } from '../data/locate.ts'
import { writeSynthetic } from '../data/synthetic.ts'
import type { EventSink } from '../observability/events.ts'

export interface CommandOptions {
  readonly json: boolean
  readonly write: (text: string) => unknown
  readonly events?: EventSink
  readonly signal?: AbortSignal
}

export interface FetchCommandOptions extends CommandOptions {
  readonly cacheDirectory: string
  /** Instead of the cache. */
  readonly directory?: string
  readonly address?: string
}

/** Ends with the directory that `--data` takes. */
export async function fetchData(options: FetchCommandOptions): Promise<void> {
  const { cacheDirectory, directory = join(cacheDirectory, 'data', 'cifar10'), address, events, signal } = options
  await fetchCifar10({
    directory,
    ...(address !== undefined && { address }),
    ...(events && { events }),
    ...(signal && { signal }),
  })
  if (options.json) options.write(`${JSON.stringify({ dataSource: 'cifar-10', directory })}\n`)
  else options.write(`CIFAR-10, all files as published, in ${directory}\n`)
}

export interface SynthesizeCommandOptions extends CommandOptions {
  readonly directory: string
  readonly seed: number
  readonly recordsPerFile: number
}

export async function synthesizeData(options: SynthesizeCommandOptions): Promise<void> {
  const { directory, seed, recordsPerFile, events, signal } = options
  await writeSynthetic({ directory, seed, recordsPerFile, ...(events && { events }), ...(signal && { signal }) })
  if (options.json) {
    options.write(`${JSON.stringify({ dataSource: 'synthetic', directory, seed, recordsPerFile })}\n`)
  } else {
    options.write(
      `Synthetic images, seed ${seed}, 6 files of ${recordsPerFile}, in ${directory}. This is not CIFAR-10.\n`,
    )
  }
}

export interface InspectCommandOptions extends CommandOptions {
  readonly directory: string
}

export interface Inspection {
  readonly dataSource: DataSource
  readonly directory: string
  readonly files: readonly FileInspection[]
  /** Over training and held-out images each. */
  readonly parts: readonly PartInspection[]
}

interface FileInspection {
  readonly name: string
  readonly bytes: number
  readonly records: number
  readonly sha256: string
  /** Whether it is the published file of this name. */
  readonly official: boolean
}

interface PartInspection {
  readonly part: 'training' | 'held-out'
  readonly examples: number
  readonly labels: Readonly<Record<string, number>>
  /** Of red, green and blue, from 0 to 1. */
  readonly channelMeans: readonly number[]
}

export async function inspectData(options: InspectCommandOptions): Promise<Inspection> {
  const images = await identifyImages(options.directory)
  const files: FileInspection[] = []
  for (const path of [...images.training, ...images.heldOut]) files.push(await inspectFile(path))
  const inspection: Inspection = {
    dataSource: images.dataSource,
    directory: options.directory,
    files,
    parts: [
      await inspectPart('training', images.training, images, options.signal),
      await inspectPart('held-out', images.heldOut, images, options.signal),
    ],
  }
  options.write(options.json ? `${JSON.stringify(inspection)}\n` : inWords(inspection))
  return inspection
}

async function inspectFile(path: string): Promise<FileInspection> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk)
  const sha256 = hash.digest('hex')
  const { size } = await stat(path)
  const name = basename(path)
  return { name, bytes: size, records: size / recordBytes, sha256, official: cifar10Digests[name] === sha256 }
}

async function inspectPart(
  part: PartInspection['part'],
  paths: readonly string[],
  images: LocatedImages,
  signal?: AbortSignal,
): Promise<PartInspection> {
  const dataset = await openCifar10(paths, images)
  try {
    const labels = Object.fromEntries(images.classes.map((name) => [name, 0]))
    const sums = [0, 0, 0]
    for (let first = 0; first < dataset.examples; first += 500) {
      signal?.throwIfAborted()
      const count = Math.min(500, dataset.examples - first)
      const batch = await dataset.read(Array.from({ length: count }, (_, index) => first + index))
      for (const label of batch.labels!.data) labels[images.classes[label]!]!++
      const pixels = batch.images!.data
      for (let at = 0; at < pixels.length; at += 3) {
        sums[0]! += pixels[at]!
        sums[1]! += pixels[at + 1]!
        sums[2]! += pixels[at + 2]!
      }
    }
    return {
      part,
      examples: dataset.examples,
      labels,
      channelMeans: sums.map((sum) => sum / dataset.examples / 1024 / 255),
    }
  } finally {
    await dataset.close()
  }
}

const sourceInWords: Record<DataSource, string> = {
  'cifar-10': 'CIFAR-10, every file as published',
  synthetic: 'synthetic images made by cloister: NOT CIFAR-10',
  other: 'images in the format of CIFAR-10, but other than published',
}

function inWords({ dataSource, directory, files, parts }: Inspection): string {
  const lines = [`${directory}: ${sourceInWords[dataSource]}`, '']
  for (const { name, bytes, records, sha256, official } of files) {
    lines.push(
      `${name.padEnd(17)} ${String(records).padStart(6)} records ${String(bytes).padStart(9)} bytes  ${sha256}`,
    )
    if (!official) lines[lines.length - 1] += '  not as published'
  }
  for (const { part, examples, labels, channelMeans } of parts) {
    const [red, green, blue] = channelMeans.map((mean) => mean.toFixed(4))
    lines.push('', `${part}: ${examples} images, mean red ${red}, green ${green}, blue ${blue}`)
    for (const [name, count] of Object.entries(labels)) lines.push(`  ${name.padEnd(26)} ${String(count).padStart(6)}`)
  }
  return `${lines.join('\n')}\n`
}
