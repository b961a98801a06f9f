// SPDX-License-Identifier: Apache-2.0
/**
 * A run's scalars and graph as a TensorBoard event file: TFRecords (length, masked CRC-32C, bytes, masked CRC-32C) of
 * tensorflow.Event messages (tensorflow/core/util/event.proto), of which only the fields below are written. It shows what events
 * hold, and the graph, which `model/graph.pb` holds as well.
 */
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { crc32c } from './crc32c.ts'
import type { CloisterEvent, EventSink } from './events.ts'

export interface TensorboardOptions {
  /** One directory for each process of a run: TensorBoard calls it a run of its own. */
  readonly directory: string
  readonly now: () => Date
  /** Told once when the file can no longer be written: the run itself goes on. */
  readonly onFailure: (error: unknown) => void
}

export interface TensorboardLog {
  readonly emit: EventSink
  /** A serialised GraphDef. */
  graph(definition: Uint8Array): void
  close(): void
}

/** Whoever looks need not wait longer; each write leaves the enclave. */
const flushAfterMs = 2_000
const rateWindowMs = 1_000
const flushAfterBytes = 64 * 1024

export function openTensorboardLog(options: TensorboardOptions): TensorboardLog {
  const { directory, now } = options
  let file: number | undefined
  let failed = false
  let pending: Uint8Array[] = []
  let pendingBytes = 0
  let flushedMs = now().getTime()

  const fail = (error: unknown): void => {
    if (!failed) options.onFailure(error)
    failed = true
    pending = []
  }
  const flush = (): void => {
    if (failed || pending.length === 0) return
    try {
      // The file is made with the first record: a process that reports nothing leaves none.
      file ??= openEventFile(directory, now())
      writeAll(file, Buffer.concat(pending))
    } catch (error) {
      fail(error)
    }
    pending = []
    pendingBytes = 0
    flushedMs = now().getTime()
  }
  const write = (event: Uint8Array): void => {
    if (failed) return
    const record = recordOf(event)
    pending.push(record)
    pendingBytes += record.length
    if (pendingBytes >= flushAfterBytes || now().getTime() - flushedMs >= flushAfterMs) flush()
  }
  const rate = rateOver(rateWindowMs, () => now().getTime())

  return {
    emit(event) {
      if (event.kind === 'resumed') write(restartEvent(now(), event.step))
      if (event.kind !== 'update' && event.kind !== 'step' && event.kind !== 'evaluation') return
      const values = scalarsOf(event)
      if (event.kind !== 'evaluation') {
        const rates = rate(event.examples)
        if (rates !== undefined) {
          values.push(['speed/steps_per_second', rates.steps])
          values.push(['speed/examples_per_second', rates.examples])
        }
      }
      write(scalarEvent(now(), event.step, values))
      if (event.kind === 'evaluation') flush()
    },
    graph(definition) {
      write(graphEvent(now(), definition))
      flush()
    },
    close() {
      flush()
      if (file !== undefined) closeSync(file)
      file = undefined
      failed = true
    },
  }
}

type Scalar = readonly [tag: string, value: number]

function scalarsOf(event: Extract<CloisterEvent, { kind: 'update' | 'step' | 'evaluation' }>): Scalar[] {
  switch (event.kind) {
    case 'update':
      return [
        ['training/loss', event.loss],
        ['training/learning_rate', event.learningRate],
        ['training/staleness', event.staleness],
      ]
    case 'step':
      return [
        ['training/loss', event.loss],
        ['speed/compute_seconds', event.computeMs / 1000],
        ['speed/wait_seconds', event.waitMs / 1000],
      ]
    case 'evaluation':
      return Object.entries(event.scores).map(([name, score]) => [`held_out/${name}`, score] as const)
  }
}

/** Counts until a window is over, then tells what that made a second; the first count opens the first window. */
function rateOver(windowMs: number, nowMs: () => number) {
  let since: number | undefined
  let steps = 0
  let total = 0
  return (examples: number): { steps: number; examples: number } | undefined => {
    const time = nowMs()
    if (since === undefined) {
      since = time
      return undefined
    }
    steps += 1
    total += examples
    if (time - since < windowMs) return undefined
    const seconds = (time - since) / 1000
    const rates = { steps: steps / seconds, examples: total / seconds }
    since = time
    steps = 0
    total = 0
    return rates
  }
}

function openEventFile(directory: string, time: Date): number {
  mkdirSync(directory, { recursive: true })
  // TensorBoard finds files by `tfevents` and reads them in the order of their names.
  const file = openSync(join(directory, `events.out.tfevents.${time.getTime()}.cloister`), 'ax')
  writeAll(file, recordOf(eventAt(time).tag(3, WireType.LengthDelimited).string('brain.Event:2').finish()))
  return file
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written)
}

/** Event.wall_time = 1, Event.step = 2. */
function eventAt(time: Date, step = 0): BinaryWriter {
  const event = new BinaryWriter().tag(1, WireType.Bit64).double(time.getTime() / 1000)
  return step === 0 ? event : event.tag(2, WireType.Varint).int64(step)
}

/** Event.summary = 5; Summary.value = 1; Value.tag = 1, Value.simple_value = 2. */
function scalarEvent(time: Date, step: number, values: readonly Scalar[]): Uint8Array {
  const event = eventAt(time, step).tag(5, WireType.LengthDelimited).fork()
  for (const [tag, value] of values) {
    event.tag(1, WireType.LengthDelimited).fork()
    event.tag(1, WireType.LengthDelimited).string(tag)
    event.tag(2, WireType.Bit32).fixed32(bitsOf(value)).join()
  }
  return event.join().finish()
}

/** The writer's own `float` refuses what lies beyond float32; a loss may. */
function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] as number
}

/** Event.graph_def = 4. */
function graphEvent(time: Date, definition: Uint8Array): Uint8Array {
  return eventAt(time).tag(4, WireType.LengthDelimited).bytes(definition).finish()
}

/** Event.session_log = 7, SessionLog.status = 1, START = 1: TensorBoard forgets later steps, which are done anew. */
function restartEvent(time: Date, step: number): Uint8Array {
  return eventAt(time, step).tag(7, WireType.LengthDelimited).fork().tag(1, WireType.Varint).int32(1).join().finish()
}

function recordOf(bytes: Uint8Array): Uint8Array {
  const record = Buffer.alloc(16 + bytes.length)
  record.writeBigUInt64LE(BigInt(bytes.length), 0)
  record.writeUInt32LE(masked(record.subarray(0, 8)), 8)
  record.set(bytes, 12)
  record.writeUInt32LE(masked(bytes), 12 + bytes.length)
  return record
}

/** TFRecord masks checksums so that one over data with checksums inside stays a good one. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}
