// SPDX-License-Identifier: Apache-2.0
/**
 * What a person sees of a run: bars with an estimate of the time left on a terminal, plain lines now and then elsewhere.
 * Draws events; knows nothing of where they come from.
 */
import { MultiBar, type SingleBar } from 'cli-progress'
import type { CloisterEvent } from '../observability/events.ts'
import { formatEvent } from '../observability/log.ts'
import type { Output } from './context.ts'

export interface Progress {
  show(source: string, event: CloisterEvent): void
  /** Ends the bars; later events print as lines. */
  stop(): void
}

/** Lines that are always worth a person's attention; the rest shows in bars and stands in the logs. */
const spoken: ReadonlySet<CloisterEvent['kind']> = new Set([
  'listening',
  'peer-joined',
  'peer-left',
  'peer-refused',
  'connection-lost',
  'update-refused',
  'evaluation',
  'warning',
  'failed',
])

export function createProgress(output: Output, now: () => Date): Progress {
  const progress = output.isTTY ? barProgress(output) : lineProgress(output, now)
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

/** A line for what happened, and one line every ten seconds for how far each source is. */
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
      const finished = event.kind === 'progress' && event.done >= event.total
      if (event.kind === 'progress' && (event.activity === 'trace' || event.done === 0)) return
      if (!finished && time - (lastShown.get(key) ?? 0) < intervalMs) return
      lastShown.set(key, time)
      output.write(`${source}: ${formatEvent(event)}\n`)
    },
    stop() {},
  }
}

function barProgress(output: Output): Progress {
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
  })
  const active = new Map<string, SingleBar>()
  const details = new Map<string, string>()
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
      if (stopped || spoken.has(event.kind)) {
        const line = `${source}: ${formatEvent(event)}\n`
        if (stopped) output.write(line)
        else bars.log(line)
        return
      }
      if (event.kind === 'step' || event.kind === 'update') {
        details.set(source, `loss ${event.loss.toFixed(3)}`)
      } else if (event.kind === 'progress') {
        const detail = event.activity === 'train' ? (details.get(source) ?? '') : event.activity
        update(source, event.done, event.total, detail)
      }
    },
    stop() {
      stopped = true
      bars.stop()
    },
  }
}
