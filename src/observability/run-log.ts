// SPDX-License-Identifier: Apache-2.0
/**
 * Where one process of a run writes its events: its own log for people, `events.jsonl` for machines (shared by the
 * processes of a run: one write a line, opened for appending). Written at once, so that a killed process loses nothing.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { CloisterEvent, EventSink } from './events.ts'
import { formatEvent } from './log.ts'

export interface RunLogOptions {
  readonly directory: string
  /** `server`, `worker0`, `train`: names the log file and the source of each event. */
  readonly source: string
  readonly now: () => Date
  /** Told once when the log can no longer be written (a full disk, say): the run itself goes on. */
  readonly onFailure: (error: unknown) => void
}

export interface RunLog {
  readonly emit: EventSink
  close(): void
}

/** One event as a line of `events.jsonl`. */
export function eventLine(event: CloisterEvent, source: string, time: Date): string {
  return `${JSON.stringify({ time: time.toISOString(), source, ...event })}\n`
}

export function openRunLog(options: RunLogOptions): RunLog {
  const events = openSync(join(options.directory, 'events.jsonl'), 'a')
  const log = openSync(join(options.directory, `${options.source}.log`), 'a')
  let failed = false
  let closed = false
  const emit = (event: CloisterEvent): void => {
    if (closed) return
    const time = options.now()
    try {
      writeSync(events, eventLine(event, options.source, time))
      // Progress is for bars; a log of it would bury the rest.
      if (event.kind !== 'progress') writeSync(log, `${time.toISOString()} ${formatEvent(event)}\n`)
    } catch (error) {
      if (!failed) options.onFailure(error)
      failed = true
    }
  }
  return {
    emit,
    close() {
      if (closed) return
      closed = true
      closeSync(events)
      closeSync(log)
    },
  }
}
