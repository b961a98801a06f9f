// SPDX-License-Identifier: Apache-2.0
/** `cloister data synthesize criteo`, and `data inspect` of click logs: what each does and says, for people or as JSON. */
import { criteoSources } from '../data/criteo/criteo-source.ts'
import { type CriteoInspection, inspectCriteo } from '../data/criteo/inspect-criteo.ts'
import { writeSyntheticCriteo } from '../data/criteo/synthetic-criteo.ts'
import type { CommandOptions } from './data.ts'

export interface SynthesizeCriteoOptions extends CommandOptions {
  readonly directory: string
  readonly rows: number
  readonly seed: number
  readonly files: number
  readonly gzip: boolean
}

export async function synthesizeCriteo(options: SynthesizeCriteoOptions): Promise<void> {
  const { directory, rows, seed, files, gzip, events, signal } = options
  const { bayes } = await writeSyntheticCriteo({
    directory,
    rows,
    seed,
    files,
    gzip,
    ...(events && { events }),
    ...(signal && { signal }),
  })
  if (options.json) {
    options.write(`${JSON.stringify({ dataSource: 'synthetic', directory, seed, rows, files, bayes })}\n`)
    return
  }
  const { clickRate, auc, logLoss } = bayes.all
  options.write(
    `Synthetic click logs, seed ${seed}, ${rows} rows, in ${directory}. This is not Criteo's data.\n` +
      `${percent(clickRate)} clicked; no model can do better than AUC ${auc.toFixed(4)}, log loss ${logLoss.toFixed(4)} on them, but by chance.\n`,
  )
}

export async function inspectCriteoData(
  options: CommandOptions & { readonly path: string },
): Promise<CriteoInspection> {
  const { path, signal } = options
  const inspection = await inspectCriteo(await criteoSources(path), { ...(signal && { signal }) })
  options.write(
    options.json ? `${JSON.stringify({ dataSource: 'criteo', path, ...inspection })}\n` : inWords(path, inspection),
  )
  return inspection
}

function inWords(
  path: string,
  { rows, clickRate, malformed, sources, integers, categories }: CriteoInspection,
): string {
  const lines = [`${path}: click logs in Criteo's format`, '']
  for (const { name, sha256 } of sources) lines.push(`${name}  ${sha256}`)
  lines.push('', `${rows} rows, ${percent(clickRate)} clicked, ${malformed.count} malformed lines`)
  for (const place of malformed.first) lines.push(`  ${place}`)
  if (malformed.count > malformed.first.length) lines.push('  …')
  lines.push('', 'column   missing      least         mean     greatest')
  for (const [column, { missing, least, mean, greatest }] of integers.entries()) {
    lines.push(
      `I${column + 1}`.padEnd(6) +
        percent(missing).padStart(10) +
        String(least).padStart(11) +
        mean.toFixed(2).padStart(13) +
        String(greatest).padStart(13),
    )
  }
  lines.push('', 'column   missing   distinct    commonest    seen once')
  for (const [column, { missing, distinct, commonest, once }] of categories.entries()) {
    lines.push(
      `C${column + 1}`.padEnd(6) +
        percent(missing).padStart(10) +
        String(distinct).padStart(11) +
        percent(commonest).padStart(13) +
        percent(once).padStart(13),
    )
  }
  return `${lines.join('\n')}\n`
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
