/** Measuring an image: with gramine-sgx-sign (a program in its place that signs what it is given), by signature alone, against a release. */
import { createHash } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { testContext } from '../../test/cli-context.ts'
import { makeSigstruct, mrSigner } from '../../test/sigstruct.ts'
import { CodedError } from '../errors.ts'
import { measure } from './measure.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cloister-measure-'))
  mkdirSync(join(directory, 'app'))
  writeFileSync(join(directory, 'app/enclave.mjs'), 'the code')
  writeFileSync(join(directory, 'cloister.manifest'), 'the manifest')
  list(['app/enclave.mjs', 'cloister.manifest'])
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const mrEnclave = 'ab'.repeat(32)
const sign = (enclave: Parameters<typeof makeSigstruct>[0] = { mrEnclave }) =>
  writeFileSync(join(directory, 'cloister.sig'), makeSigstruct(enclave))

function list(paths: readonly string[]): void {
  const digest = (path: string) =>
    createHash('sha256')
      .update(readFileSync(join(directory, path)))
      .digest('hex')
  writeFileSync(join(directory, 'SHA256SUMS'), paths.map((path) => `${digest(path)}  ${path}\n`).join(''))
}

/** Takes the arguments of the real one, and notes them and where it ran. */
function installSigner(enclave = { mrEnclave }): string {
  const tools = join(directory, 'tools')
  mkdirSync(tools)
  writeFileSync(join(tools, 'made.sig'), makeSigstruct(enclave))
  const program = join(tools, 'gramine-sgx-sign')
  writeFileSync(
    program,
    [
      '#!/bin/sh',
      `{ pwd; echo "$@"; head -n 1 "$4"; } > ${tools}/called`,
      `while [ $# -gt 1 ]; do [ "$1" = --sigfile ] && cp ${tools}/made.sig "$2"; shift; done`,
      '',
    ].join('\n'),
  )
  chmodSync(program, 0o755)
  return tools
}

async function run(options: Parameters<typeof measure>[1], searchPath = '') {
  const { context, printed } = testContext({ cwd: directory, env: { PATH: `${searchPath}:/usr/bin:/bin` } })
  const status = await measure(context, options).catch((thrown: unknown) => {
    if (thrown instanceof CodedError) return { code: thrown.code as string, message: thrown.message }
    throw thrown
  })
  return { status, out: printed.out }
}

const refused = (code: string, message: RegExp = /./) => ({
  status: { code, message: expect.stringMatching(message) },
  out: '',
})

describe('an image', () => {
  test('without Gramine: what its signature says', async () => {
    sign({ mrEnclave, productId: 2, svn: 7, debug: true })
    const { status, out } = await run({ enclave: '.' })
    expect(status).toBe(0)
    expect(out).toContain(`MRENCLAVE  ${mrEnclave}\nMRSIGNER   ${mrSigner}\nproduct 2, SVN 7, DEBUG`)
    expect(out).toContain('as its signature says')
  })

  test('with Gramine: measured anew, in its directory, with a key that lives no longer', async () => {
    const tools = installSigner()
    const { status, out } = await run({ enclave: '.' }, tools)
    expect(status).toBe(0)
    expect(out).toContain(`MRENCLAVE  ${mrEnclave}\nMRSIGNER   not signed yet`)
    expect(out).toContain('as gramine-sgx-sign measures it')
    const [where, args, key] = readFileSync(join(tools, 'called'), 'utf8').split('\n')
    expect(where).toBe(directory)
    expect(args).toMatch(/^--manifest cloister.manifest --key \S+ --output \S+.manifest.sgx --sigfile \S+.sig$/)
    expect(key).toBe('-----BEGIN RSA PRIVATE KEY-----')
    expect(() => readFileSync(args!.split(' ')[3]!)).toThrow('ENOENT')
  })

  test('signed, with Gramine: both must agree', async () => {
    sign()
    const tools = installSigner()
    expect((await run({ enclave: '.' }, tools)).out).toContain(`MRSIGNER   ${mrSigner}`)
    sign({ mrEnclave: 'cd'.repeat(32) })
    expect(await run({ enclave: '.' }, tools)).toMatchObject(refused('image-signature-stale', /expected.*abab.*cdcd/))
  })

  test('neither signed nor measurable', async () => {
    expect(await run({ enclave: '.' })).toMatchObject(refused('image-unmeasured'))
  })

  test('whose signer fails, or writes something else', async () => {
    const tools = installSigner()
    writeFileSync(join(tools, 'made.sig'), 'no signature')
    expect(await run({ enclave: '.' }, tools)).toMatchObject(refused('sigstruct-malformed'))
    writeFileSync(join(tools, 'gramine-sgx-sign'), '#!/bin/sh\necho no such library >&2\nexit 1\n')
    expect(await run({ enclave: '.' }, tools)).toMatchObject(refused('image-signing-failed', /no such library/))
  })

  test('with a file changed, removed, or no list', async () => {
    sign()
    writeFileSync(join(directory, 'app/enclave.mjs'), 'other code')
    expect(await run({ enclave: '.' })).toMatchObject(refused('image-altered', /app\/enclave.mjs is another/))
    rmSync(join(directory, 'app/enclave.mjs'))
    expect(await run({ enclave: '.' })).toMatchObject(refused('image-altered', /app\/enclave.mjs is absent/))
    list(['cloister.sig'])
    expect(await run({ enclave: '.' })).toMatchObject(refused('image-incomplete', /manifest/))
    writeFileSync(join(directory, 'SHA256SUMS'), 'nonsense\n')
    expect(await run({ enclave: '.' })).toMatchObject(refused('image-incomplete', /nonsense/))
    expect(await run({ enclave: 'nowhere' })).toMatchObject(refused('image-incomplete'))
  })
})

describe('a released description', () => {
  beforeEach(async () => {
    sign()
    writeFileSync(join(directory, 'release.json'), (await run({ enclave: '.', json: true })).out)
  })
  const released = () => JSON.parse(readFileSync(join(directory, 'release.json'), 'utf8'))

  test('says what to expect, and that an image is it', async () => {
    expect((await run({ description: 'release.json' })).out).toContain(`MRENCLAVE  ${mrEnclave}`)
    expect((await run({ description: 'release.json', enclave: '.' })).out).toContain(': the released image')
  })

  test('of the same enclave, signed by another, is the same', async () => {
    writeFileSync(join(directory, 'release.json'), JSON.stringify({ ...released(), mrSigner: 'ef'.repeat(32) }))
    expect((await run({ description: 'release.json', enclave: '.' })).status).toBe(0)
  })

  test.each([
    ['MRENCLAVE', { mrEnclave: 'cd'.repeat(32) }, /mrEnclave/],
    ['debug', { debug: true }, /debug/],
    ['SVN', { svn: 2 }, /svn/],
    ['product', { productId: 9 }, /productId/],
    ['files', { files: [] }, /app\/enclave.mjs: not in the release.*cloister.manifest: not in the release/],
    ['a file', { files: [{ path: 'app/other', sha256: mrEnclave }] }, /app\/other: expected abab.*got no such file/],
  ])('that differs in %s', async (_, change, message) => {
    writeFileSync(join(directory, 'release.json'), JSON.stringify({ ...released(), ...change }))
    expect(await run({ description: 'release.json', enclave: '.' })).toMatchObject(
      refused('description-differs', message),
    )
  })

  test('that is none', async () => {
    expect(await run({ description: 'nowhere.json' })).toMatchObject(refused('description-unreadable'))
    writeFileSync(join(directory, 'release.json'), '{')
    expect(await run({ description: 'release.json' })).toMatchObject(refused('description-unreadable'))
    for (const change of [{ mrEnclave: 'AB' }, { more: 1 }, { platform: 'simulated' }]) {
      writeFileSync(join(directory, 'release.json'), JSON.stringify({ mrEnclave, ...change }))
      expect(await run({ description: 'release.json' })).toMatchObject(refused('config-invalid'))
    }
  })
})
