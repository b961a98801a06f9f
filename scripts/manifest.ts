// SPDX-License-Identifier: Apache-2.0
/**
 * The manifest without Gramine at hand: the part of Jinja that our template uses, and what a manifest of ours may never say. Where
 * `gramine-manifest` is installed it renders; the check reads what came out, whoever rendered it.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { parse } from 'smol-toml'

export type ManifestValues = Readonly<Record<string, string>>

/** `{{ name }}`, `{{ gramine.runtimedir() }}` and lines of `{% if name %}` … `{% endif %}`, as `gramine-manifest` renders them. */
export function renderManifest(template: string, values: ManifestValues, runtimeDirectory: string): string {
  const rendered: string[] = []
  const open: boolean[] = []
  // Jinja drops the last line break.
  for (const line of template.replace(/\n$/, '').split('\n')) {
    const [, condition, ended] = /^\{% (?:if (\w+)|(endif)) %\}$/.exec(line) ?? []
    if (condition !== undefined) open.push(given(condition) !== '')
    else if (ended !== undefined && open.length > 0) open.pop()
    // What is left of a line with a statement alone is its line break.
    if (condition !== undefined || ended !== undefined) {
      if (open.every(Boolean)) rendered.push('')
      continue
    }
    if (!open.every(Boolean)) continue
    rendered.push(
      line.replace(/\{\{ (?:(\w+)|gramine\.runtimedir\(\)) \}\}/g, (_, name?: string) =>
        name === undefined ? runtimeDirectory : given(name),
      ),
    )
  }
  const text = rendered.join('\n')
  if (open.length > 0 || /\{[{%#]|[%}#]\}/.test(text))
    throw new Error('the template uses more of Jinja than is rendered here')
  return text

  function given(name: string): string {
    const value = values[name]
    if (value === undefined) throw new Error(`the template wants a value for ${name}`)
    return value
  }
}

export interface ManifestCheck {
  /** What is wrong, a line each; empty when nothing is. */
  readonly problems: readonly string[]
  /** Files that are measured, as the manifest names them: relative to the image or absolute. */
  readonly trusted: readonly string[]
  /** Trusted files of the system that are not on this machine: it has no Gramine. */
  readonly absent: readonly string[]
}

/** What `gramine-manifest` adds: its defaults, written out, and the library OS itself. */
const added: Readonly<Record<string, (value: unknown) => boolean>> = {
  'loader.entrypoint.uri': (value) => String(value).endsWith('/libsysdb.so'),
  'loader.entrypoint.sha256': () => true,
  'sgx.enable_stats': (value) => value === false,
  'sgx.cpu_features.avx': () => true,
  'sgx.cpu_features.avx512': () => true,
  'sgx.cpu_features.amx': () => true,
  'sgx.cpu_features.mpx': () => true,
  'sgx.cpu_features.pkru': () => true,
}

/** The whole of what our manifests say. Any other key is a problem: what Gramine adds tomorrow is refused until somebody has thought about it. */
const keys: ReadonlySet<string> = new Set([
  'libos.entrypoint',
  'loader.argv',
  'loader.log_level',
  'loader.env.HOME',
  'loader.env.LD_LIBRARY_PATH',
  'loader.env.OMP_NUM_THREADS',
  'loader.env.TF_CPP_MIN_LOG_LEVEL',
  'loader.env.UV_THREADPOOL_SIZE',
  'fs.mounts',
  'fs.root.type',
  'fs.start_dir',
  'sgx.allowed_files',
  'sgx.debug',
  'sgx.edmm_enable',
  'sgx.enclave_size',
  'sgx.isvprodid',
  'sgx.isvsvn',
  'sgx.max_threads',
  'sgx.remote_attestation',
  'sgx.trusted_files',
  'sgx.use_exinfo',
  'sys.disallow_subprocesses',
  'sys.enable_extra_runtime_domain_names_conf',
  'sys.enable_sigterm_injection',
  'sys.fds.limit',
  'sys.stack.size',
])

const allowedFiles = ['file:config/', 'file:data/', 'file:run/']

export interface ManifestExpectations {
  /** Of the image: what relative paths are relative to. */
  readonly directory: string
  readonly image: 'development' | 'production'
}

export function checkManifest(text: string, { directory, image }: ManifestExpectations): ManifestCheck {
  let manifest: Map<string, unknown>
  try {
    manifest = new Map(flat(parse(text)))
  } catch (thrown) {
    return { problems: [`not TOML: ${(thrown as Error).message.split('\n', 1)}`], trusted: [], absent: [] }
  }
  const problems: string[] = []
  const expect = (key: string, isRight: (value: unknown) => boolean, expected: string) => {
    const value = manifest.get(key)
    if (!isRight(value)) problems.push(`${key}: expected ${expected}, got ${JSON.stringify(value)}`)
  }
  for (const [key, value] of manifest) {
    if (!keys.has(key) && added[key]?.(value) !== true) problems.push(`${key}: not an option of ours`)
  }
  const production = image === 'production'
  expect('sgx.debug', (value) => value === !production, String(!production))
  expect('sgx.remote_attestation', (value) => value === 'dcap', '"dcap"')
  expect('fs.root.type', (value) => value === 'tmpfs', '"tmpfs"')
  expect('fs.start_dir', (value) => value === '/cloister', '"/cloister"')
  expect('sys.disallow_subprocesses', (value) => value === true, 'true')
  expect('sgx.enclave_size', isPowerOfTwoSize, 'a power of two')
  expect('loader.argv', (value) => strings(value).at(-1) === '/cloister/app/enclave.mjs', 'our entry file last')
  for (const [key, value] of manifest) {
    // A table here would be `{ passthrough = true }`: the host's value.
    if (key.startsWith('loader.env.') && typeof value !== 'string') problems.push(`${key}: expected a fixed string`)
  }
  const allowed = production ? allowedFiles : [...allowedFiles, 'file:platform/']
  for (const uri of strings(manifest.get('sgx.allowed_files'))) {
    if (!allowed.includes(uri)) problems.push(`sgx.allowed_files: ${uri} is not one of ${allowed.join(', ')}`)
  }
  const trusted = strings(manifest.get('sgx.trusted_files')).map((uri) => uri.replace(/^file:/, ''))
  const absent: string[] = []
  for (const path of trusted) {
    if (existsSync(resolve(directory, path))) continue
    if (path.startsWith('/')) absent.push(path)
    else problems.push(`sgx.trusted_files: ${path} does not exist`)
  }
  problems.push(
    ...mountProblems(manifest.get('fs.mounts'), [...trusted, ...allowed.map((uri) => uri.replace(/^file:/, ''))]),
  )
  return { problems, trusted, absent }
}

/** A mount of anything that is neither trusted nor allowed is no use; one that is encrypted has a key of the processor's. */
function mountProblems(mounts: unknown, known: readonly string[]): string[] {
  if (!Array.isArray(mounts)) return ['fs.mounts: expected a list']
  return (mounts as Record<string, unknown>[]).flatMap(({ type, path, uri, key_name: key }) => {
    if (type === 'tmpfs') return []
    const source = String(uri).replace(/^file:/, '')
    if (type === 'encrypted') {
      return key === '_sgx_mrenclave' || key === '_sgx_mrsigner' ? [] : [`${path}: expected a key of the processor`]
    }
    const isKnown = known.some((file) => file === source || file.startsWith(`${source}/`))
    return isKnown ? [] : [`${path}: ${source} is in no list of files`]
  })
}

function isPowerOfTwoSize(value: unknown): boolean {
  const [, count, unit] = /^(\d+)([MG])$/.exec(String(value)) ?? []
  return count !== undefined && unit !== undefined && Number.isInteger(Math.log2(Number(count))) && Number(count) > 0
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.map(uriOf) : []
}

/** `gramine-manifest` writes trusted files as tables, with digests where it knows them. */
function uriOf(entry: unknown): string {
  return typeof entry === 'object' && entry !== null && 'uri' in entry ? String(entry.uri) : String(entry)
}

/** Dotted keys down to what is no plain table; variables of the environment stay whole. */
function* flat(table: object, prefix = ''): Generator<[string, unknown]> {
  for (const [name, value] of Object.entries(table)) {
    const key = `${prefix}${name}`
    const isTable = typeof value === 'object' && value !== null && !Array.isArray(value)
    if (isTable && prefix !== 'loader.env.') yield* flat(value, `${key}.`)
    else yield [key, value]
  }
}
