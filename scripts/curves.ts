// SPDX-License-Identifier: Apache-2.0
/**
 * Loss and held-out accuracy of a run as one SVG: `tsx scripts/curves.ts RUN_DIRECTORY OUT.svg`. Reads events.jsonl: the loss is
 * the server's, averaged over every 25 updates; dots are held-out evaluations.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

type Point = readonly [step: number, value: number]

const [run, out] = process.argv.slice(2) as [string, string]
const events = readFileSync(join(run, 'events.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line))
const updates = events.filter(({ kind }) => kind === 'update')
const width = 25
const loss: Point[] = []
for (let first = 0; first + width <= updates.length; first += width) {
  const part = updates.slice(first, first + width)
  loss.push([part.at(-1).step, part.reduce((sum, { loss }) => sum + loss, 0) / width])
}
const accuracy: Point[] = events
  .filter(({ kind }) => kind === 'evaluation')
  .map(({ step, scores }) => [step, scores.accuracy])
const last = updates.at(-1).step

writeFileSync(
  out,
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 560" font-family="sans-serif" font-size="12">
<title>Training loss and held-out accuracy by updates of the model</title>
<rect width="720" height="560" fill="white"/>
${panel(20, 'training loss', loss, Math.ceil(Math.max(...loss.map(([, value]) => value)) * 2) / 2, 2, '#1f6fb4')}
${panel(290, 'held-out accuracy', accuracy, 1, 2, '#2a8f4a')}
<text x="390" y="552" text-anchor="middle">updates of the model</text>
</svg>
`,
)

function panel(
  top: number,
  title: string,
  points: readonly Point[],
  highest: number,
  digits: number,
  colour: string,
): string {
  const [left, right, height] = [60, 700, 210]
  const bottom = top + 20 + height
  const x = (step: number) => (left + ((right - left) * step) / last).toFixed(1)
  const y = (value: number) => (bottom - (height * value) / highest).toFixed(1)
  const grid = [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const [value, step] = [part * highest, Math.round(part * last)]
    return `<line x1="${left}" x2="${right}" y1="${y(value)}" y2="${y(value)}" stroke="#ddd"/>
<text x="${left - 6}" y="${Number(y(value)) + 4}" text-anchor="end">${value.toFixed(digits)}</text>
<text x="${x(step)}" y="${bottom + 16}" text-anchor="middle">${step}</text>`
  })
  const line = points.map(([step, value]) => `${x(step)},${y(value)}`).join(' ')
  const dots =
    points.length > 40
      ? []
      : points.map(([step, value]) => `<circle cx="${x(step)}" cy="${y(value)}" r="3" fill="${colour}"/>`)
  const end = points.at(-1)
  const label =
    end &&
    `<text x="${right}" y="${Number(y(end[1])) - 8}" text-anchor="end" fill="${colour}">${end[1].toFixed(digits + 2)}</text>`
  return `<text x="${left}" y="${top + 10}" font-weight="bold">${title}</text>
${grid.join('\n')}
<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="1.5"/>
${dots.join('')}${label ?? ''}`
}
