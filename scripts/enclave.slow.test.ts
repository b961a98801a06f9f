/** What the enclave image is made of: which packages, how much of our own, and the same bytes wherever it is built. */
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { engineDirectory, requires } from '../test/requirements.ts'
import { type BuiltEnclave, buildEnclave, type EnclaveOptions, ownCodeBudgetBytes } from './enclave.ts'

const root = resolve(import.meta.dirname, '..')

requires('tensorflow-library').describe('the enclave image', () => {
  let work: string
  let built: BuiltEnclave

  const options = (name: string): EnclaveOptions => ({
    directory: join(work, name),
    image: 'production',
    sizes: 'default',
    engine: engineDirectory,
    node: process.execPath,
    libraryDirectory: '/usr/lib/x86_64-linux-gnu',
    mountKey: '_sgx_mrenclave',
    openModel: false,
    edmm: false,
    renderer: undefined,
  })

  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), 'cloister-enclave-'))
    built = await buildEnclave(options('one'))
  })
  afterAll(() => rmSync(work, { recursive: true, force: true }))

  test('has these packages inside, and no others', () => {
    expect(built.packages.map(({ name }) => name)).toMatchInlineSnapshot(`
      [
        "@bufbuild/protobuf",
        "@noble/ciphers",
        "@noble/curves",
        "@noble/hashes",
        "@noble/post-quantum",
        "@peculiar/utils",
        "@scure/base",
        "@tensorflow/tfjs-backend-cpu",
        "@tensorflow/tfjs-core",
        "@tensorflow/tfjs-layers",
        "age-encryption",
        "ansi-regex",
        "asn1-ts",
        "asn1js",
        "bintrees",
        "canonicalize",
        "cborg",
        "cli-progress",
        "emoji-regex",
        "is-fullwidth-code-point",
        "koffi",
        "long",
        "prom-client",
        "seedrandom",
        "string-width",
        "strip-ansi",
        "tdigest",
        "valibot",
      ]
    `)
  })

  test('takes these modules of Node, none of which starts processes or runs WebAssembly', () => {
    const forbidden = /child_process|cluster|inspector|vm|wasi|worker_threads/
    expect(built.imports.filter((name) => forbidden.test(name))).toEqual([])
    expect(built.imports).toMatchInlineSnapshot(`
      [
        "./koffi.node",
        "crypto",
        "events",
        "node-fetch",
        "node:assert",
        "node:assert/strict",
        "node:buffer",
        "node:crypto",
        "node:fs",
        "node:fs/promises",
        "node:http",
        "node:http2",
        "node:https",
        "node:net",
        "node:os",
        "node:path",
        "node:stream",
        "node:stream/promises",
        "node:stream/web",
        "node:timers/promises",
        "node:tls",
        "node:util",
        "node:v8",
        "node:zlib",
        "readline",
        "util",
      ]
    `)
  })

  test('has no more code of our own than its budget, and a manifest without problems', () => {
    expect(built.ownBytes).toBeGreaterThan(100_000)
    expect(built.ownBytes).toBeLessThan(ownCodeBudgetBytes)
    expect(built.problems).toEqual([])
  })

  test('is the same to the byte from another checkout in another directory', async () => {
    const checkout = join(work, 'a checkout elsewhere')
    mkdirSync(checkout)
    for (const part of ['src', 'deploy', 'package.json', 'tsconfig.json']) {
      cpSync(join(root, part), join(checkout, part), { recursive: true })
    }
    const inside = built.packages.map(({ name }) => name)
    for (const name of [...inside, '@tensorflow/tfjs', `@koromix/koffi-${process.platform}-${process.arch}`]) {
      cpSync(join(root, 'node_modules', name), join(checkout, 'node_modules', name), { recursive: true })
    }
    await buildEnclave({ ...options('two/deeper'), root: checkout })
    const [one, two] = [join(work, 'one'), join(work, 'two/deeper')]
    const files = (directory: string) => readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()
    expect(files(two)).toEqual(files(one))
    for (const file of ['app/enclave.mjs', 'app/koffi.node', 'app/image.json', 'cloister.manifest', 'sbom.spdx.json']) {
      expect(readFileSync(join(two, file)).equals(readFileSync(join(one, file))), file).toBe(true)
    }
    expect(readFileSync(join(two, 'SHA256SUMS'), 'utf8')).toBe(readFileSync(join(one, 'SHA256SUMS'), 'utf8'))
    expect(readFileSync(join(one, 'app/enclave.mjs'), 'utf8')).not.toContain(work)
    expect(readFileSync(join(one, 'app/enclave.mjs'), 'utf8')).not.toContain(root)
  })

  test('its list of digests is what sha256sum checks', () => {
    const said = execFileSync('sha256sum', ['-c', 'SHA256SUMS'], { cwd: join(work, 'one'), encoding: 'utf8' })
    expect(said.trim().split('\n')).toHaveLength(10)
    expect(said).toMatch(/^app\/enclave.mjs: OK$/m)
    expect(said).toMatch(/^cloister.manifest: OK$/m)
  })

  test('its bill of materials names all that is inside', () => {
    const sbom = JSON.parse(readFileSync(join(work, 'one/sbom.spdx.json'), 'utf8')) as {
      packages: { SPDXID: string; name: string; versionInfo: string }[]
      relationships: { relatedSpdxElement: string }[]
    }
    const names = sbom.packages.map(({ name }) => name)
    expect(names).toEqual(expect.arrayContaining(['cloister', ...built.packages.map(({ name }) => name)]))
    expect(names).toEqual(expect.arrayContaining(['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2']))
    const ids = sbom.packages.map(({ SPDXID }) => SPDXID)
    expect(new Set(ids).size).toBe(ids.length)
    for (const id of ids) expect(id).toMatch(/^SPDXRef-[A-Za-z0-9.-]+$/)
    expect(sbom.relationships.map(({ relatedSpdxElement }) => relatedSpdxElement).sort()).toEqual([...ids].sort())
    // What npm installed under these names has these versions.
    const listed = spawnSync('npm', ['sbom', '--sbom-format', 'spdx', '--package-lock-only'], { cwd: root })
    const installed = (JSON.parse(listed.stdout.toString()) as typeof sbom).packages
    for (const { name, versionInfo } of sbom.packages) {
      if (name === 'cloister' || !built.packages.some((part) => part.name === name)) continue
      expect(installed.filter((part) => part.name === name).map((part) => part.versionInfo)).toContain(versionInfo)
    }
  })
})
