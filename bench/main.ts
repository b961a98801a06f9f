// SPDX-License-Identifier: Apache-2.0
/** `npm run bench -- NAME [OPTIONS]`: the published figures, each against a peer in the same run. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** Files here that are not a benchmark. */
const shared = ['main', 'simulated-run', 'statistics']
const [name, ...options] = process.argv.slice(2)
const script = join(import.meta.dirname, `${name}.ts`)
if (name === undefined || shared.includes(name) || !existsSync(script)) {
  const names = readdirSync(import.meta.dirname).filter(
    (file) => file.endsWith('.ts') && !shared.includes(file.slice(0, -3)),
  )
  console.error(`usage: npm run bench -- NAME [OPTIONS]\n  ${names.map((file) => file.slice(0, -3)).join('\n  ')}`)
  process.exitCode = 2
} else {
  process.exitCode =
    spawnSync(process.execPath, ['--import', 'tsx', script, ...options], { stdio: 'inherit' }).status ?? 1
}
