// SPDX-License-Identifier: Apache-2.0
/** Libraries that are missing, damaged or something else; the right one is loaded by every other test. */
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import koffi from 'koffi'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadLibrary } from './library.ts'
import { libraryFiles } from './locate.ts'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cloister-library-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const { framework, api } = libraryFiles()
const install = 'cloister engine install'

test('a missing library names the command that installs it, whichever file is missing', async () => {
  const missing = { code: 'engine-missing', hint: expect.stringContaining(install) }
  expect(() => loadLibrary(directory)).toThrow(
    expect.objectContaining({ ...missing, message: expect.stringContaining(framework) }),
  )
  await writeFile(join(directory, framework), '')
  expect(() => loadLibrary(directory)).toThrow(
    expect.objectContaining({ ...missing, message: expect.stringContaining(api) }),
  )
})

test('a damaged library is refused with the reason of the loader', async () => {
  for (const file of [framework, api])
    await writeFile(join(directory, file), 'no library at all, but long enough to look')
  expect(() => loadLibrary(directory)).toThrow(
    expect.objectContaining({
      code: 'engine-library',
      message: expect.stringContaining(framework),
      hint: expect.stringContaining(install),
    }),
  )
})

test('a library of something else is refused', async () => {
  // Any shared library does: koffi's own is at hand everywhere.
  const other = process.report.getReport() as unknown as { sharedObjects: string[] }
  const path = other.sharedObjects.find((name) => name.endsWith(koffi.extension) || /libm\.|libSystem/.test(name))
  for (const file of [framework, api]) await copyFile(path!, join(directory, file))
  expect(() => loadLibrary(directory)).toThrow(
    expect.objectContaining({ code: 'engine-library', hint: expect.stringContaining(install) }),
  )
})
