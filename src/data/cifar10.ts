// SPDX-License-Identifier: Apache-2.0
/**
 * CIFAR-10 in its binary version (https://www.cs.toronto.edu/~kriz/cifar.html): files of records of one label byte and 3,072
 * pixel bytes, the red, green and blue planes of a 32×32 image row by row; 10,000 records a file at most. Files are opened
 * once and read by record, so that memory is bounded by the batch whatever the number of files. The host may change the
 * files unless they are measured or encrypted: sizes are checked when opened, and each label whenever its record is read.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { type Batch, DataError, type Dataset } from './dataset.ts'

export const recordBytes = 3073
export const maxRecordsPerFile = 10_000
const side = 32
const pixels = side * side

/** Order and names of batches.meta.txt. */
export const cifar10Classes = [
  'airplane',
  'automobile',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
] as const

export const cifar10TrainingFiles = [1, 2, 3, 4, 5].map((batch) => `data_batch_${batch}.bin`)
export const cifar10TestFile = 'test_batch.bin'
/** Names of the classes, one a line. */
export const classListFile = 'batches.meta.txt'

interface RecordFile {
  readonly path: string
  readonly handle: FileHandle
  readonly firstExample: number
  readonly records: number
}

export interface ImageSetName {
  readonly name: string
  readonly classes: readonly string[]
}

/** Opens the files as one data set; examples are numbered through them in the order given. */
export async function openCifar10(
  paths: readonly string[],
  { name, classes }: ImageSetName = { name: 'cifar-10', classes: cifar10Classes },
): Promise<Dataset> {
  const files: RecordFile[] = []
  const close = async (): Promise<void> => {
    await Promise.all(files.map(({ handle }) => handle.close()))
  }
  let examples = 0
  try {
    for (const path of paths) {
      const file = await openRecordFile(path, examples)
      files.push(file)
      examples += file.records
    }
    if (examples === 0) {
      throw new DataError('shard-empty', `expected at least one record, got ${paths.length} files without any`, {
        hint: 'name at least one file of images, and look at it with: cloister data inspect',
      })
    }
  } catch (error) {
    await close()
    throw error
  }

  return {
    name,
    examples,
    schema: { images: { shape: [side, side, 3], dtype: 'uint8' }, labels: { shape: [], dtype: 'int32' } },
    classes,
    close,

    async labels() {
      const labels = new Uint8Array(examples)
      for (const file of files) {
        for await (const { record, bytes } of recordsOf(file)) {
          labels[file.firstExample + record] = labelOf(file, record, bytes)
        }
      }
      return labels
    },

    async read(indices): Promise<Batch> {
      const images = new Uint8Array(indices.length * pixels * 3)
      const labels = new Int32Array(indices.length)
      const records = new Uint8Array(indices.length * recordBytes)
      await Promise.all(
        Array.from(indices, async (example, row) => {
          const file = files.findLast(({ firstExample }) => firstExample <= example)
          if (file === undefined || !(example < examples)) throw new RangeError(`example ${example} of ${examples}`)
          const record = example - file.firstExample
          const bytes = records.subarray(row * recordBytes, (row + 1) * recordBytes)
          await readFully(file, bytes, record)
          labels[row] = labelOf(file, record, bytes)
          interleave(bytes, images, row * pixels * 3)
        }),
      )
      return {
        images: { shape: [indices.length, side, side, 3], dtype: 'uint8', data: images },
        labels: { shape: [indices.length], dtype: 'int32', data: labels },
      }
    },
  }
}

async function openRecordFile(path: string, firstExample: number): Promise<RecordFile> {
  let handle: FileHandle
  try {
    handle = await open(path, 'r')
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT'
    throw new DataError(
      missing ? 'data-missing' : 'data-unreadable',
      `expected a file of CIFAR-10 records at ${path}, got ${missing ? 'none' : String(cause)}`,
      { hint: 'run: cloister data fetch cifar10, or name another directory with --data', cause },
    )
  }
  try {
    const status = await handle.stat()
    if (!status.isFile()) {
      throw new DataError('data-unreadable', `expected a file of CIFAR-10 records at ${path}, got no regular file`, {
        hint: 'name the directory that holds data_batch_1.bin … with --data',
      })
    }
    return { path, handle, firstExample, records: recordsIn(path, status.size) }
  } catch (error) {
    await handle.close()
    throw error
  }
}

function recordsIn(path: string, size: number): number {
  const most = maxRecordsPerFile * recordBytes
  if (size > most) {
    throw new DataError(
      'data-oversized',
      `${path}: expected at most ${maxRecordsPerFile} records of ${recordBytes} bytes (${most}), got ${size} bytes: ` +
        `${size - most} extra from offset ${most} on`,
      { hint: 'fetch the file again, or split own data into files of 10,000 records' },
    )
  }
  const rest = size % recordBytes
  if (rest !== 0) {
    const record = (size - rest) / recordBytes
    throw new DataError(
      'data-truncated',
      `${path}: expected whole records of ${recordBytes} bytes, got ${size} bytes: record ${record} at offset ` +
        `${size - rest} has only ${rest}`,
      { hint: 'the file is cut off or is not in the binary version of CIFAR-10: fetch it again' },
    )
  }
  return size / recordBytes
}

async function readFully(file: RecordFile, into: Uint8Array, record: number): Promise<void> {
  let done = 0
  while (done < into.length) {
    const offset = record * recordBytes + done
    const { bytesRead } = await file.handle.read(into, done, into.length - done, offset).catch((cause: unknown) => {
      throw new DataError('data-unreadable', `${file.path}: record ${record} at offset ${offset}: ${String(cause)}`, {
        hint: 'look at the disk, or at the key of the encrypted mount',
        cause,
      })
    })
    if (bytesRead === 0) {
      throw new DataError(
        'data-changed',
        `${file.path}: expected ${file.records} records as when it was opened, got the end at offset ${offset}, in ` +
          `record ${record}`,
        { hint: 'leave data files alone while a job runs, and start it again' },
      )
    }
    done += bytesRead
  }
}

/** All records of a file in order, through one buffer. */
async function* recordsOf(file: RecordFile): AsyncGenerator<{ record: number; bytes: Uint8Array }> {
  const atOnce = 256
  const buffer = new Uint8Array(atOnce * recordBytes)
  for (let first = 0; first < file.records; first += atOnce) {
    const count = Math.min(atOnce, file.records - first)
    await readFully(file, buffer.subarray(0, count * recordBytes), first)
    for (let index = 0; index < count; index++) {
      yield { record: first + index, bytes: buffer.subarray(index * recordBytes, (index + 1) * recordBytes) }
    }
  }
}

function labelOf(file: RecordFile, record: number, bytes: Uint8Array): number {
  const label = bytes[0]!
  if (label >= cifar10Classes.length) {
    throw new DataError(
      'label-out-of-range',
      `${basename(file.path)}: expected a label from 0 to ${cifar10Classes.length - 1}, got ${label} in record ` +
        `${record} at offset ${record * recordBytes}`,
      { hint: 'the file is damaged or is not in the binary version of CIFAR-10: fetch it again' },
    )
  }
  return label
}

/** Planes to pixels: TensorFlow wants the channels last. */
function interleave(record: Uint8Array, images: Uint8Array, at: number): void {
  for (let pixel = 0; pixel < pixels; pixel++) {
    const to = at + 3 * pixel
    images[to] = record[1 + pixel]!
    images[to + 1] = record[1 + pixels + pixel]!
    images[to + 2] = record[1 + 2 * pixels + pixel]!
  }
}
