// SPDX-License-Identifier: Apache-2.0
/** Curves over steps as an SVG picture that needs nothing else: axes, a grid at round numbers, a line a curve. */

export type Point = readonly [step: number, value: number]

export interface Curve {
  readonly name: string
  readonly points: readonly Point[]
}

const size = { width: 720, height: 360 }
const plot = { left: 64, right: 700, top: 40, bottom: 310 }
const colours = ['#1f6fb4', '#c4541c', '#2a8f4a', '#7a4ea8']
/** Few points are measurements to be seen one by one. */
const mostDots = 40

/** Points that are no finite numbers are left out: a loss that left them would take the picture with it. */
export function curveChart(title: string, curves: readonly Curve[]): string {
  const drawn = curves.map(({ name, points }) => ({
    name,
    points: points.filter(([, value]) => Number.isFinite(value)),
  }))
  const all = drawn.flatMap(({ points }) => points)
  const values = roundTicks(all.map(([, value]) => value))
  const steps = roundTicks([0, ...all.map(([step]) => step), 5])
  const x = scale(steps, plot.left, plot.right)
  const y = scale(values, plot.bottom, plot.top)
  const digits = digitsOf(values)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" font-family="sans-serif" font-size="12">
<title>${escaped(title)}</title>
<rect width="${size.width}" height="${size.height}" fill="white"/>
<text x="${plot.left}" y="20" font-weight="bold">${escaped(title)}</text>
${values.map((value) => horizontal(y(value), value.toFixed(digits))).join('\n')}
${steps.map((step) => `<text x="${x(step)}" y="${plot.bottom + 18}" text-anchor="middle">${step}</text>`).join('\n')}
<text x="${(plot.left + plot.right) / 2}" y="${size.height - 8}" text-anchor="middle">updates of the model</text>
${drawn.map((curve, index) => line(curve, index, { x, y, digits: digits + 2 })).join('\n')}
</svg>
`
}

function horizontal(y: string, label: string): string {
  return `<line x1="${plot.left}" x2="${plot.right}" y1="${y}" y2="${y}" stroke="#ddd"/>
<text x="${plot.left - 6}" y="${y}" dy="4" text-anchor="end">${label}</text>`
}

interface Axes {
  readonly x: (step: number) => string
  readonly y: (value: number) => string
  readonly digits: number
}

function line({ name, points }: Curve, index: number, { x, y, digits }: Axes): string {
  const colour = colours[index % colours.length]
  const path = points.map(([step, value]) => `${x(step)},${y(value)}`).join(' ')
  const dots = points.length > mostDots ? [] : points
  const last = points.at(-1)
  const legend = last === undefined ? name : `${name}, at the end ${last[1].toFixed(digits)}`
  return `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>
${dots.map(([step, value]) => `<circle cx="${x(step)}" cy="${y(value)}" r="3" fill="${colour}"/>`).join('')}
<text x="${plot.right}" y="${20 + index * 15}" text-anchor="end" fill="${colour}">${escaped(legend)}</text>`
}

/** Four to ten round numbers from below the lowest value to above the highest. */
function roundTicks(values: readonly number[]): number[] {
  let [lowest, highest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const value of values) {
    lowest = Math.min(lowest, value)
    highest = Math.max(highest, value)
  }
  if (!(lowest <= highest)) return [0, 1]
  if (highest - lowest < 1e-6) [lowest, highest] = [lowest - 0.05, highest + 0.05]
  const rough = (highest - lowest) / 5
  const power = 10 ** Math.floor(Math.log10(rough))
  const unit = ([1, 2, 5, 10].find((factor) => factor * power >= rough) as number) * power
  const [from, to] = [Math.floor(lowest / unit + 1e-9), Math.ceil(highest / unit - 1e-9)]
  return Array.from({ length: to - from + 1 }, (_, index) => Number(((from + index) * unit).toPrecision(12)))
}

function scale(ticks: readonly number[], from: number, to: number): (value: number) => string {
  const [first, last] = [ticks[0] as number, ticks.at(-1) as number]
  return (value) => (from + ((value - first) / (last - first)) * (to - from)).toFixed(1)
}

/** Decimals that tell neighbouring ticks apart. */
function digitsOf(ticks: readonly number[]): number {
  const digits = ticks.map((tick) => (String(tick).split('.')[1] ?? '').length)
  return Math.min(6, Math.max(1, ...digits))
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
