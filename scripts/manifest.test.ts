/** The manifest as we render it, as Jinja renders it, and everything that it must not say. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { parse, stringify } from 'smol-toml'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkManifest, type ManifestValues, renderManifest } from './manifest.ts'

const template = readFileSync(resolve(import.meta.dirname, '../deploy/gramine/cloister.manifest.template'), 'utf8')
const sizes = JSON.parse(readFileSync(resolve(import.meta.dirname, '../deploy/gramine/sizes.json'), 'utf8'))
const runtime = '/usr/lib/gramine/runtime/glibc'
const production: ManifestValues = {
  ...(Object.fromEntries(Object.entries(sizes.default).map(([key, value]) => [key, String(value)])) as ManifestValues),
  node: '/usr/bin/node',
  library_directory: '/usr/lib/x86_64-linux-gnu',
  development: '',
  debug: 'false',
  log_level: 'error',
  edmm: 'false',
  mount_key: '_sgx_mrenclave',
  sealed_model: 'true',
  measured_job: '',
  product_id: '1',
  svn: '1',
}
const development = { ...production, development: 'true', debug: 'true', mount_key: '' }

let directory: string
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'cloister-manifest-'))
  const files = ['app/enclave.mjs', 'app/koffi.node', 'app/image.json', 'hosts', 'job.json']
  const libraries = ['engine/libtensorflow_framework.so.2', 'engine/libtensorflow_cc.so.2']
  for (const file of [...files, ...libraries]) {
    mkdirSync(dirname(join(directory, file)), { recursive: true })
    writeFileSync(join(directory, file), '')
  }
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const check = (text: string, image: 'development' | 'production' = 'production') =>
  checkManifest(text, { directory, image }).problems

describe('rendering', () => {
  test('both kinds of image pass the check', () => {
    expect(check(renderManifest(template, production, runtime))).toEqual([])
    expect(check(renderManifest(template, { ...production, measured_job: 'true' }, runtime))).toEqual([])
    expect(check(renderManifest(template, development, runtime), 'development')).toEqual([])
  })

  test('a model that its owners may read is not sealed to the processor, checkpoints are', () => {
    const text = renderManifest(template, { ...production, sealed_model: '' }, runtime)
    expect(check(text)).toEqual([])
    expect(text).not.toContain('run/model')
    expect(text).toContain('run/checkpoints')
  })

  test.each(Object.keys(sizes))('the sizes %s pass', (name) => {
    const row = Object.fromEntries(Object.entries(sizes[name]).map(([key, value]) => [key, String(value)]))
    expect(Object.keys(sizes[name])).toEqual(Object.keys(sizes.default))
    expect(check(renderManifest(template, { ...production, ...row }, runtime))).toEqual([])
  })

  test('a value that is not given is refused, and so is Jinja that is not known here', () => {
    const { node: _, ...rest } = production
    expect(() => renderManifest(template, rest, runtime)).toThrow('node')
    for (const more of [
      "{{ node | default('x') }}",
      '{% for a in b %}',
      '{% else %}',
      '{# comment #}',
      '{% if x == y %}',
    ]) {
      expect(() => renderManifest(`${template}${more}\n`, production, runtime)).toThrow('more of Jinja')
    }
    expect(() => renderManifest('{% if node %}\n', production, runtime)).toThrow('more of Jinja')
  })

  // What gramine-manifest renders with; Debian's python3 has it as often as not.
  const jinja = spawnSync('python3', ['-c', 'import jinja2'])
  test.runIf(jinja.status === 0)('is what Jinja makes of it', () => {
    const program =
      'import sys, json, jinja2; q = json.load(sys.stdin); g = type("g", (), {"runtimedir": staticmethod(lambda: q["runtime"])});' +
      'sys.stdout.write(jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(q["template"]).render(gramine=g, **q["values"]))'
    for (const values of [
      production,
      development,
      { ...production, sealed_model: '' },
      { ...production, measured_job: 'true', edmm: 'true' },
    ]) {
      const input = JSON.stringify({ template, values, runtime })
      const { stdout, stderr } = spawnSync('python3', ['-c', program], { input, encoding: 'utf8' })
      expect(stderr).toBe('')
      expect(renderManifest(template, values, runtime)).toBe(stdout)
    }
  })
})

describe('what a manifest must not say', () => {
  test('what gramine-manifest adds is no problem, as long as it is that', () => {
    const parsed = parse(good()) as { loader: object; sgx: { trusted_files: string[] } }
    const normalised = (entrypoint: string, stats: boolean) =>
      stringify({
        ...parsed,
        loader: { ...parsed.loader, entrypoint: { uri: entrypoint } },
        sgx: {
          ...parsed.sgx,
          enable_stats: stats,
          cpu_features: { avx: 'unspecified', mpx: 'disabled' },
          trusted_files: [
            // A directory expands to its files.
            { uri: `file:${runtime}/libc.so.6`, sha256: 'ab'.repeat(32) },
            ...parsed.sgx.trusted_files.slice(1).map((uri) => ({ uri })),
          ],
        },
      })
    expect(check(normalised('file:/usr/lib/gramine/libsysdb.so', false))).toEqual([])
    expect(check(normalised('file:/cloister/data/libos.so', false)).join()).toContain('loader.entrypoint')
    expect(check(normalised('file:/usr/lib/gramine/libsysdb.so', true)).join()).toContain('sgx.enable_stats')
  })

  const good = () => renderManifest(template, production, runtime)
  const changed = (from: string | RegExp, to: string) => {
    const text = good().replace(from, to)
    expect(text).not.toBe(good())
    return check(text)
  }

  test.each([
    ['the host’s arguments', 'loader.insecure__use_cmdline_argv = true'],
    ['arguments from a file', 'loader.argv_src_file = "file:config/argv"'],
    ['the host’s environment', 'loader.insecure__use_host_env = true'],
    ['an environment from a file', 'loader.env_src_file = "file:config/env"'],
    ['a variable passed through', 'loader.env.NODE_OPTIONS = { passthrough = true }'],
    ['a variable more, even a fixed one', 'loader.env.NODE_OPTIONS = "--require /cloister/data/x.js"'],
    ['keys in the manifest', 'fs.insecure__keys.default = "00112233445566778899aabbccddeeff"'],
    ['files unchecked', 'sgx.file_check_policy = "allow_all_but_log"'],
    ['eventfd of the host', 'sys.insecure__allow_eventfd = true'],
    ['no randomisation', 'loader.insecure__disable_aslr = true'],
    ['a log file of the host', 'loader.log_file = "log"'],
    ['profiling', 'sgx.profile.enable = "all"'],
    ['device calls', 'sys.allowed_ioctls = [ { request_code = 1 } ]'],
    ['weaker sealing keys', 'sgx.seal_key.flags_mask = "0x0"'],
  ])('%s', (_, line) => {
    expect(check(`${good()}\n${line}\n`).join()).toContain('not an option of ours')
  })

  test('debug, unless the build is named for it', () => {
    expect(changed('sgx.debug = false', 'sgx.debug = true').join()).toMatch(/^sgx.debug/)
    expect(check(good(), 'development').join()).toMatch(/sgx.debug/)
    expect(check(renderManifest(template, development, runtime)).join()).toMatch(/sgx.debug/)
  })

  test.each([
    ['no attestation', /sgx.remote_attestation = .*/, 'sgx.remote_attestation = "none"', 'sgx.remote_attestation'],
    ['EPID', '"dcap"', '"epid"', 'sgx.remote_attestation'],
    ['the whole of the host’s files', '"tmpfs"\nfs.start', '"chroot"\nfs.start', 'fs.root.type'],
    ['another directory to start in', '"/cloister"', '"/cloister/data"', 'fs.start_dir'],
    ['child processes', 'sys.disallow_subprocesses = true', 'sys.disallow_subprocesses = false', 'sys.disallow'],
    ['a size that no enclave can have', '"8G"', '"12G"', 'sgx.enclave_size'],
    ['another program', '/cloister/app/enclave.mjs"]', '/cloister/data/enclave.mjs"]', 'loader.argv'],
    ['arguments after the entry file', 'enclave.mjs"]', 'enclave.mjs", "--x"]', 'loader.argv'],
    ['further allowed files', '"file:run/",', '"file:run/", "file:engine/",', 'file:engine/'],
    ['the root of the host', '"file:run/",', '"file:run/", "file:/",', 'file:/'],
    ['a mount in no list', 'uri = "file:hosts"', 'uri = "file:/etc/hosts"', '/etc/hosts'],
    ['sealing under a key of the host', '"_sgx_mrenclave"', '"default"', 'run/model'],
    ['a variable passed through', 'HOME = "/tmp"', 'HOME = { passthrough = true }', 'loader.env.HOME'],
    [
      'a trusted file that is not there',
      '"file:app/koffi.node",\n  "file:app/im',
      '"file:app/k.node",\n  "file:app/im',
      'k.node',
    ],
    ['no TOML', 'sgx.debug = false', 'sgx..debug = false', 'not TOML'],
  ])('%s', (_, from, to, problem) => {
    expect(changed(from, to).join()).toContain(problem)
  })
})
