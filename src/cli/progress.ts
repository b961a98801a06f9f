// SPDX-License-Identifier: Apache-2.0
/**
 * What a person sees of a run: bars with an estimate of the time left on a terminal, plain lines now and then elsewhere.
 * Draws events; knows nothing of where they come from.
 */
import { MultiBar, type SingleBar } from 'cli-progress'
import type { CloisterEvent } from '../observability/events.ts'
import { formatEvent } from '../observability/log.ts'
import { eventLine } from '../observability/run-log.ts'
import type { Output } from './context.ts'

export interface Progress {
  show(source: string, event: CloisterEvent): void
  /** Ends the bars; later events print as lines. */
  stop(): void
}

/** Lines that are always worth a person's attention; the rest shows in bars and stands in the logs. */
const spoken: ReadonlySet<CloisterEvent['kind']> = new Set([
  'listening',
  'metrics-served',
  'peer-joined',
  'peer-left',
  'peer-refused',
  'connection-lost',
  'update-refused',
  'evaluation',
  'key-awaited',
  'key-provisioned',
  'resumed',
  'reassigned',
  'warning',
  'failed',
])

/** `updates`: how many the job has in all. */
export interface Extent {
  readonly updates: number
}

/** For machines: every event as it comes, one JSON object a line, as in `events.jsonl`. */
export function createJsonLines(output: Output, now: () => Date): Progress {
  return { show: (source, event) => output.write(eventLine(event, source, now())), stop() {} }
}

export function createProgress(output: Output, now: () => Date, extent: Extent): Progress {
  const progress = output.isTTY ? barProgress(output, now, extent) : lineProgress(output, now)
  const warned = new Set<string>()
  return {
    show(source, event) {
      // All processes of a run warn of the same things: once is enough for a person, the logs have each.
      if (event.kind === 'warning') {
        if (warned.has(event.error.message)) return
        warned.add(event.error.message)
      }
      if (isOrdinary(event)) return
      progress.show(source, event)
    },
    stop: () => progress.stop(),
  }
}

/** Asynchronous training ends with every worker but one in the middle of a step that is not needed any more. */
function isOrdinary(event: CloisterEvent): boolean {
  return event.kind === 'update-refused' && event.error.code === 'training-finished'
}

/** A line for what happened, and a line every ten seconds for how far each source is. */
function lineProgress(output: Output, now: () => Date): Progress {
  const intervalMs = 10_000
  const lastShown = new Map<string, number>()
  return {
    show(source, event) {
      if (spoken.has(event.kind)) {
        output.write(`${source}: ${formatEvent(event)}\n`)
        return
      }
      if (event.kind !== 'step' && event.kind !== 'update' && event.kind !== 'progress') return
      const key = `${source} ${event.kind === 'progress' ? event.activity : event.kind}`
      const time = now().getTime()
      const before = lastShown.get(key)
      if (before === undefined) lastShown.set(key, time)
      // What is done before it could be wondered about is not worth a line.
      if (before === undefined ? event.kind === 'progress' : time - before < intervalMs) return
      lastShown.set(key, time)
      output.write(`${source}: ${formatEvent(event)}\n`)
    },
    stop() {},
  }
}

function minutes(seconds: number): string {
  const whole = Math.round(seconds)
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`
}

/** Cut at the terminal's width; each line clears what a bar has left to its right. */
function folded(text: string, columns: number): string {
  const characters = Array.from(text)
  let lines = ''
  for (let at = 0; at < characters.length; at += columns) {
    lines += `${characters.slice(at, at + columns).join('')}\x1b[0K\n`
  }
  return lines
}

/** Examples a second since the first update of a source. */
function speed(now: () => Date): (source: string, examples: number) => string {
  const counts = new Map<string, { readonly sinceMs: number; examples: number }>()
  return (source, examples) => {
    const time = now().getTime()
    const count = counts.get(source)
    // The first says when, not how long: it was under way before.
    if (count === undefined) counts.set(source, { sinceMs: time, examples: 0 })
    else count.examples += examples
    if (count === undefined || time <= count.sinceMs) return ''
    return `, ${((count.examples * 1000) / (time - count.sinceMs)).toFixed(0)} examples/s`
  }
}

/** What a person wants to see of the last evaluation while the run goes on. */
function standing(scores: Readonly<Record<string, number>>): string {
  const { auc, accuracy } = scores
  if (auc !== undefined) return `, AUC ${auc.toFixed(4)}`
  return accuracy === undefined ? '' : `, accuracy ${accuracy.toFixed(3)}`
}

function barProgress(output: Output, now: () => Date, { updates }: Extent): Progress {
  const bars = new MultiBar({
    format: '{name} {bar} {value}/{total} {detail} ETA {eta_formatted}',
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 24,
    hideCursor: true,
    clearOnComplete: false,
    stream: output as unknown as NodeJS.WritableStream,
    etaBuffer: 50,
    // The launcher ends the run in order; the bar library must not end it first.
    gracefulExit: false,
    emptyOnZero: true,
    formatTime: (seconds) => (Number.isFinite(seconds) ? minutes(seconds) : '…'),
  })
  const active = new Map<string, SingleBar>()
  const rate = speed(now)
  let scored = ''
  let stopped = false

  const update = (source: string, done: number, total: number, detail: string): void => {
    let bar = active.get(source)
    if (bar === undefined) {
      bar = bars.create(total, done, { name: source.padEnd(9), detail })
      active.set(source, bar)
    }
    bar.setTotal(total)
    bar.update(done, { detail })
  }

  return {
    show(source, event) {
      if (event.kind === 'evaluation') scored = standing(event.scores)
      if (stopped || spoken.has(event.kind)) {
        const line = `${source}: ${formatEvent(event)}`
        // The bar library writes only while it has bars, and cuts what is wider than the terminal.
        if (stopped || active.size === 0) output.write(`${line}\n`)
        else bars.log(folded(line, output.columns ?? 80))
        return
      }
      if (event.kind === 'update') {
        update(source, event.step, updates, `loss ${event.loss.toFixed(3)}${rate(source, event.examples)}${scored}`)
      } else if (event.kind === 'step') {
        // The step that this worker's gradients became.
        const seconds = (event.iterationMs / 1000).toFixed(2)
        update(source, event.step + 1, updates, `loss ${event.loss.toFixed(3)}, ${seconds} s a step`)
      } else if (event.kind === 'progress' && event.activity !== 'trace') {
        update(source, event.done, event.total, event.activity)
      }
    },
    stop() {
      if (!stopped && active.size > 0) {
        // Lines that wait for the next redraw are written by it only.
        bars.update()
        bars.stop()
      }
      stopped = true
    },
  }
}
