/**
 * What people see, to the letter: each `.txt` here holds commands (`$ cloister …`), what they print (`2> ` marks standard error) and their
 * exit status. A run of this test runs the commands in order in a new directory and compares; `vitest -u` writes what came instead.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import type { CliContext } from '../../src/cli/context.ts'
import { run } from '../../src/cli/program.ts'
import { smallJob } from '../e2e/program.ts'

const root = resolve(import.meta.dirname, '../..')
const directories: string[] = []
const startedIn = process.cwd()

afterEach(() => {
  process.chdir(startedIn)
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

const transcripts = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'))

test.each(transcripts)('%s', async (name) => {
  const file = join(import.meta.dirname, name)
  const [title, ...lines] = readFileSync(file, 'utf8').split('\n')
  const commands = lines.filter((line) => line.startsWith('$ cloister ') || line === '$ cloister')
  expect(commands.length).toBeGreaterThan(0)
  const directory = fixture()
  // Operands are paths as typed: relative to where the program was started.
  process.chdir(directory)
  let text = `${title}\n`
  for (const command of commands) text += `\n${command}\n${await transcriptOf(command, directory)}`
  await expect(text).toMatchFileSnapshot(file)
})

/** Files that commands may name. */
function fixture(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-transcript-'))
  directories.push(directory)
  const weak = {
    version: 1,
    root: { name: 'trial', sha256: 'ab'.repeat(32) },
    enclave: { signer: { mrSigner: 'cd'.repeat(32), productId: 0, minimumSvn: 0 } },
    attributes: { allowDebug: true, allowProvisioningKeys: true },
    tcb: { acceptedStatuses: ['UpToDate', 'OutOfDate'], acceptedAdvisories: 'any', minimumEvaluationNumber: 0 },
    collateral: { graceHours: 48 },
    platforms: 'any',
    freshness: { maximumAgeMinutes: 1440 },
  }
  writeFileSync(join(directory, 'job.json'), JSON.stringify(smallJob()))
  writeFileSync(join(directory, 'weak.json'), JSON.stringify(weak))
  writeFileSync(join(directory, 'broken.json'), '{"workload":')
  return directory
}

async function transcriptOf(command: string, directory: string): Promise<string> {
  const written: { text: string; isError: boolean }[] = []
  const into = (isError: boolean) => ({ columns: 80, write: (text: string) => written.push({ text, isError }) })
  const context: CliContext = {
    env: { CLOISTER_CACHE: join(directory, 'cache'), HOME: directory },
    cwd: directory,
    self: [process.execPath, join(root, 'src/main.ts')],
    stdin: process.stdin,
    stdout: into(false),
    stderr: into(true),
    now: () => new Date('2026-01-02T03:04:05Z'),
    signal: new AbortController().signal,
  }
  const status = await run(command.split(' ').filter(Boolean).slice(2), context)
  let said = ''
  for (const isError of [false, true]) {
    const text = written.filter((part) => part.isError === isError).map((part) => part.text)
    const lines = text.join('').split('\n').slice(0, -1)
    for (const line of lines) said += `${isError ? '2> ' : ''}${line}`.trimEnd().concat('\n')
  }
  const placed = said
    .replaceAll(directory, '<directory>')
    .replaceAll(root, '<cloister>')
    .replace(/\b\d+ files\b/g, '<count> files')
    .replace(/tensorflow-2\.21\.0-\w+-\w+/g, '<engine>')
    .replace(/libtensorflow_\w+\.(so\.2|2\.dylib)( +)?/g, '<library> ')
  // What this build measures changes with every line of it.
  const steady = command === '$ cloister measure' ? placed.replace(/(MRENCLAVE +)[0-9a-f]{64}/, '$1<hex>') : placed
  return `${steady}[exit ${status}]\n`
}
