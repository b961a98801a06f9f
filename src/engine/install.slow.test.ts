// SPDX-License-Identifier: Apache-2.0
/** The real wheel through the real pip: needs the network, or a pip that knows where the wheel lies. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type InstallProgress, installEngine } from './install.ts'
import { engineDirectory } from './locate.ts'

test('installs the pinned library, showing how far it is', async () => {
  const root = await mkdtemp(join(tmpdir(), 'cloister-install-'))
  try {
    const progress: InstallProgress[] = []
    const onProgress = (report: InstallProgress) => progress.push(report)
    const directory = engineDirectory(root)
    expect(await installEngine({ directory, onProgress })).toMatchObject({ directory, state: 'intact' })
    for (const phase of ['download', 'extract']) {
      const reports = progress.filter((report) => report.phase === phase)
      expect(new Set(reports.map(({ doneBytes }) => doneBytes)).size, phase).toBeGreaterThan(2)
    }
  } finally {
    await rm(root, { recursive: true, force: true })
  }
})
