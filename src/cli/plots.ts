// SPDX-License-Identifier: Apache-2.0
/** Curves of a run beside its logs: `loss.svg`, and `accuracy.svg` and `auc.svg` where the model has such a score. Drawn from events.jsonl. */
import { createReadStream, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { serverName } from '../federation/server-name.ts'
import { type Curve, curveChart, type Point } from '../observability/curve-chart.ts'
import { parseEvent } from '../observability/publishable.ts'

/** As many points as a chart can show; more are averaged. */
const mostPoints = 300

export async function writePlots(directory: string): Promise<void> {
  const { losses, scores } = await readCurves(join(directory, 'events.jsonl'))
  const heldOut = (name: string): readonly Point[] => scores.get(name) ?? []
  const draw = (file: string, title: string, curves: readonly Curve[]): void => {
    const drawn = curves.filter(({ points }) => points.length > 0)
    if (drawn.length > 0) writeFileSync(join(directory, file), curveChart(title, drawn))
  }
  const heldOutLoss = heldOut('loss').length > 0 ? heldOut('loss') : heldOut('logLoss')
  draw('loss.svg', 'Loss by updates of the model', [
    { name: 'training', points: averaged(losses) },
    { name: 'held out', points: heldOutLoss },
  ])
  draw('accuracy.svg', 'Accuracy by updates of the model', [{ name: 'held out', points: heldOut('accuracy') }])
  draw('auc.svg', 'AUC by updates of the model', [{ name: 'held out', points: heldOut('auc') }])
}

interface Curves {
  readonly losses: readonly Point[]
  readonly scores: ReadonlyMap<string, readonly Point[]>
}

async function readCurves(file: string): Promise<Curves> {
  const losses: Point[] = []
  const scores = new Map<string, Point[]>()
  if (!existsSync(file)) return { losses, scores }
  for await (const line of createInterface({ input: createReadStream(file, 'utf8') })) {
    if (!line.includes('"kind":"update"') && !line.includes('"kind":"evaluation"')) continue
    const written = parsed(line)
    const event = parseEvent(written)
    if (event === undefined || (event.kind !== 'update' && event.kind !== 'evaluation')) continue
    // Of several servers the one that leads draws: it alone asks for scores, and it counts the job's updates.
    if (written?.source !== serverName(0) && written?.source !== 'train') continue
    if (event.kind === 'update') append(losses, [event.step, event.loss])
    else {
      for (const [name, score] of Object.entries(event.scores)) {
        const points = scores.get(name) ?? []
        scores.set(name, points)
        append(points, [event.step, score])
      }
    }
  }
  return { losses, scores }
}

/** The last line of a process that was killed may be torn. */
function parsed(line: string): { readonly source?: unknown } | undefined {
  try {
    return JSON.parse(line) as { readonly source?: unknown }
  } catch {
    return undefined
  }
}

/** A resumed server does some updates anew: what it did before of them is not part of the model. */
function append(points: Point[], point: Point): void {
  while (points.length > 0 && points.at(-1)![0] >= point[0]) points.pop()
  points.push(point)
}

function averaged(points: readonly Point[]): Point[] {
  const width = Math.ceil(points.length / mostPoints)
  const means: Point[] = []
  for (let first = 0; first < points.length; first += width) {
    const part = points.slice(first, first + width)
    means.push([part.at(-1)![0], part.reduce((sum, [, value]) => sum + value, 0) / part.length])
  }
  return means
}
