// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { startFlags } from './v8-flags.ts'

test.each(['src/main.ts', 'deploy/gramine/cloister.manifest.template'])('%s starts V8 with the same flags', (path) => {
  const commandLine = readFileSync(path, 'utf8')
    .split('\n')
    .find((line) => line.startsWith('#!') || line.startsWith('loader.argv'))
  for (const flag of startFlags) expect(commandLine).toContain(flag)
})
