// SPDX-License-Identifier: Apache-2.0
/**
 * Which images a run uses: the directory that was named; else the cache; else the official download; else, without a network,
 * synthetic ones. What a directory holds is found out by its contents: only the official files, byte for byte, count as CIFAR-10.
 */
import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import {
  cifar10Classes,
  cifar10TestFile,
  cifar10TrainingFiles,
  classListFile,
  type ImageSetName,
  openCifar10,
} from './cifar10.ts'
import { DataError, type Dataset } from './dataset.ts'
import { cifar10Digests, fetchCifar10, hasDigests } from './fetch.ts'
import { FetchError } from './fetch-error.ts'
import { syntheticClasses, writeSynthetic } from './synthetic.ts'

/** `other`: images of somebody's own, or a changed copy, in the same format. */
export type DataSource = 'cifar-10' | 'synthetic' | 'other'

export interface ImageFiles extends ImageSetName {
  readonly directory: string
  readonly training: readonly string[]
  readonly heldOut: readonly string[]
}

export interface LocatedImages extends ImageFiles {
  readonly dataSource: DataSource
}

export interface LocateOptions {
  /** `--data` or CLOISTER_DATA. */
  readonly directory?: string
  readonly cacheDirectory: string
  readonly address?: string
  readonly digests?: Readonly<Record<string, string>>
  /** Of the synthetic set, should it come to that. */
  readonly syntheticRecordsPerFile?: number
  readonly events?: EventSink
  readonly signal?: AbortSignal
}

export async function locateImages(options: LocateOptions): Promise<LocatedImages> {
  const { digests = cifar10Digests, cacheDirectory, address, events, signal } = options
  if (options.directory !== undefined) return identifyImages(options.directory, digests)
  const cached = join(cacheDirectory, 'data', 'cifar10')
  const common = { ...(events && { events }), ...(signal && { signal }) }
  try {
    await fetchCifar10({ directory: cached, digests, ...(address !== undefined && { address }), ...common })
    return identifyImages(cached, digests)
  } catch (error) {
    if (!(error instanceof FetchError) || !absent.has(error.code)) throw error
    events?.({ kind: 'warning', error: publicError(error) })
  }
  const recordsPerFile = options.syntheticRecordsPerFile ?? 2000
  const synthetic = join(cacheDirectory, 'data', `synthetic-${recordsPerFile}`)
  await writeSynthetic({ directory: synthetic, seed: 0, recordsPerFile, ...common }).catch((error: unknown) => {
    // Made by an earlier start, or by one at the same time.
    if (!(error instanceof DataError && error.code === 'data-exists')) throw error
  })
  return identifyImages(synthetic, digests)
}

const absent = new Set<string>(['data-offline', 'data-download-failed'])

/** The data files of a directory: any of the five training files, and the test file. */
export async function imageFilesOf(directory: string): Promise<ImageFiles> {
  const present = await readdir(directory).catch((cause: unknown) => {
    throw new DataError('data-missing', `expected a directory of images at ${directory}, got ${cause}`, {
      hint: 'run: cloister data fetch cifar10, or name another directory with --data',
      cause,
    })
  })
  const training = cifar10TrainingFiles.filter((name) => present.includes(name))
  if (training.length === 0 || !present.includes(cifar10TestFile)) {
    throw new DataError(
      'data-missing',
      `${directory}: expected ${cifar10TrainingFiles[0]} … and ${cifar10TestFile}, got ${present.slice(0, 10).join(', ') || 'nothing'}`,
      { hint: 'name a directory in the layout of the binary version of CIFAR-10 with --data' },
    )
  }
  const paths = (names: readonly string[]): string[] => names.map((name) => join(directory, name))
  const files = { directory, training: paths(training), heldOut: paths([cifar10TestFile]) }
  if (!present.includes(classListFile)) return { ...files, name: 'images', classes: cifar10Classes }
  const list = await readFile(join(directory, classListFile), 'utf8')
  const classes = list
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
  const name = classes.join() === syntheticClasses.join() ? 'synthetic' : 'images'
  return { ...files, name, classes: classes.length === cifar10Classes.length ? classes : cifar10Classes }
}

export function openTraining(files: ImageFiles): Promise<Dataset> {
  return openCifar10(files.training, files)
}

export function openHeldOut(files: ImageFiles): Promise<Dataset> {
  return openCifar10(files.heldOut, files)
}

/** What a directory holds, by its contents. */
export async function identifyImages(
  directory: string,
  digests: Readonly<Record<string, string>> = cifar10Digests,
): Promise<LocatedImages> {
  const files = await imageFilesOf(directory)
  if (files.name === 'synthetic') return { ...files, dataSource: 'synthetic' }
  const names = [...files.training, ...files.heldOut].map((path) => basename(path))
  const official = await hasDigests(directory, Object.fromEntries(names.map((name) => [name, digests[name] ?? ''])))
  return official ? { ...files, name: 'cifar-10', dataSource: 'cifar-10' } : { ...files, dataSource: 'other' }
}
