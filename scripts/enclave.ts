// SPDX-License-Identifier: Apache-2.0
/**
 * `npm run build:enclave`: the directory that Gramine is started in, with all that is measured, the directories that the host fills, the
 * manifest, the list of digests and the bill of materials. docs/gramine.md says what is what. The same files from the same
 * sources, wherever they are built.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { cacheDirectory } from '../src/cli/context.ts'
import { engineInfo } from '../src/engine/install.ts'
import { engineDirectory } from '../src/engine/locate.ts'
import { type Bundle, bundle } from './bundle.ts'
import { checkManifest, type ManifestValues, renderManifest } from './manifest.ts'
import { billOfMaterials } from './sbom.ts'

const checkout = resolve(import.meta.dirname, '..')

/** Bytes of our own code in the bundle. More of it is more to trust: raise it with a reason. */
export const ownCodeBudgetBytes = 850_000

/** Where Debian's and Ubuntu's package of Gramine has its runtime; its own tools know better where they are installed. */
const usualRuntimeDirectory = '/usr/lib/x86_64-linux-gnu/gramine/runtime/glibc'

export interface EnclaveOptions {
  readonly directory: string
  readonly image: 'development' | 'production'
  /** A row of deploy/gramine/sizes.json. */
  readonly sizes: string
  /** With TensorFlow's two libraries, as `cloister engine install` pins them. */
  readonly engine: string
  readonly node: string
  /** Of libstdc++ and libgcc. */
  readonly libraryDirectory: string
  /** Seals `run/model` and `run/checkpoints` beside the application's own sealing. */
  readonly mountKey: '_sgx_mrenclave' | '_sgx_mrsigner' | 'none'
  /** `run/model` is left to the job's `release`: plain, or encrypted to its owners. */
  readonly openModel: boolean
  readonly edmm: boolean
  /** Measured with the rest: the enclave runs this job alone. */
  readonly job?: string | undefined
  /** `gramine-manifest`, where there is one. */
  readonly renderer: string | undefined
  /** A checkout with its dependencies; another than this one only to show that it makes no difference. */
  readonly root?: string
}

export interface BuiltEnclave extends Bundle {
  readonly manifest: string
  readonly renderedBy: 'gramine-manifest' | 'cloister'
  readonly problems: readonly string[]
  readonly absent: readonly string[]
}

export async function buildEnclave(options: EnclaveOptions): Promise<BuiltEnclave> {
  const { directory, image, engine, root = checkout } = options
  const templates = join(root, 'deploy/gramine')
  const sizes = await sizesOf(templates, options.sizes)
  const into = (path: string) => join(directory, path)
  for (const path of ['config', 'data', 'engine', 'run/model', 'run/checkpoints']) {
    await mkdir(into(path), { recursive: true })
  }
  if (image === 'development') await mkdir(into('platform'), { recursive: true })
  const built = await bundle({ directory, image, root })
  await writeFile(
    into('app/image.json'),
    `${JSON.stringify({ tensorflowThreads: Number(sizes.tensorflow_threads) })}\n`,
  )
  const { files, state } = await engineInfo({ directory: engine })
  if (state !== 'intact')
    throw new Error(`${engine}: expected TensorFlow's library, it is ${state}: cloister engine install`)
  for (const { name } of files) await copyFile(join(engine, name), into(`engine/${name}`))
  await copyFile(join(templates, 'hosts'), into('hosts'))
  if (options.job !== undefined) await copyFile(options.job, into('job.json'))

  const name = image === 'production' ? 'cloister' : 'cloister-development'
  const manifest = into(`${name}.manifest`)
  const values = manifestValues(options, sizes)
  await renderInto(manifest, join(templates, 'cloister.manifest.template'), values, options.renderer)
  const checked = checkManifest(await readFile(manifest, 'utf8'), { directory, image })
  const measured = checked.trusted.filter((path) => !path.endsWith('/') && !checked.absent.includes(path)).sort()
  await writeFile(into('SHA256SUMS'), await digestList(directory, [...measured, `${name}.manifest`]))
  await writeFile(into('sbom.spdx.json'), await billOfMaterials(root, built, files))
  const renderedBy = options.renderer === undefined ? 'cloister' : 'gramine-manifest'
  return { ...built, manifest, renderedBy, problems: checked.problems, absent: checked.absent }
}

async function sizesOf(templates: string, name: string): Promise<ManifestValues> {
  const table = JSON.parse(await readFile(join(templates, 'sizes.json'), 'utf8')) as Record<string, ManifestValues>
  const sizes = table[name]
  if (sizes === undefined) throw new Error(`--sizes ${name}: expected one of ${Object.keys(table).join(', ')}`)
  return Object.fromEntries(Object.entries(sizes).map(([key, value]) => [key, String(value)]))
}

function manifestValues(options: EnclaveOptions, sizes: ManifestValues): ManifestValues {
  const development = options.image === 'development'
  return {
    ...sizes,
    node: options.node,
    library_directory: options.libraryDirectory,
    // Of what Jinja takes for true, only the empty string is false.
    development: development ? 'true' : '',
    debug: String(development),
    log_level: development ? 'warning' : 'error',
    edmm: String(options.edmm),
    mount_key: options.mountKey === 'none' ? '' : options.mountKey,
    sealed_model: options.openModel ? '' : 'true',
    measured_job: options.job === undefined ? '' : 'true',
    // Two products: a policy by signer does not take the one for the other.
    product_id: development ? '2' : '1',
    svn: '1',
  }
}

async function renderInto(
  manifest: string,
  template: string,
  values: ManifestValues,
  renderer: string | undefined,
): Promise<void> {
  if (renderer === undefined) {
    await writeFile(manifest, renderManifest(await readFile(template, 'utf8'), values, usualRuntimeDirectory))
    return
  }
  const defined = Object.entries(values).map(([name, value]) => `-D${name}=${value}`)
  // Our files' places are relative to the image.
  execFileSync(renderer, [...defined, template, manifest], {
    cwd: dirname(manifest),
    stdio: ['ignore', 'inherit', 'inherit'],
  })
}

/** As `sha256sum` writes it and `sha256sum -c` reads it. */
async function digestList(directory: string, paths: readonly string[]): Promise<string> {
  const lines: string[] = []
  for (const path of paths) {
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(resolve(directory, path))) hash.update(chunk)
    lines.push(`${hash.digest('hex')}  ${path}\n`)
  }
  return lines.join('')
}

function onPath(program: string, searchPath: string): string | undefined {
  const candidates = searchPath.split(delimiter).map((directory) => join(directory, program))
  return candidates.find((candidate) => {
    try {
      execFileSync(candidate, ['--help'], { stdio: 'ignore' })
      return true
    } catch {
      return false
    }
  })
}

function report(built: BuiltEnclave): string {
  const kib = (bytes: number) => `${(bytes / 1024).toFixed(0).padStart(6)} KiB`
  const lines = [
    `our own code ${kib(built.ownBytes)}   budget ${kib(ownCodeBudgetBytes).trim()}`,
    ...built.packages.map(({ name, version, bytes }) => `${kib(bytes).padStart(23)}   ${name} ${version}`),
    `app/enclave.mjs ${kib(built.totalBytes).trim()}`,
    `${built.manifest}, rendered by ${built.renderedBy}`,
    ...built.absent.map((path) => `not on this machine: ${path}`),
    ...built.problems.map((problem) => `PROBLEM ${problem}`),
  ]
  return `${lines.join('\n')}\n`
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: 'build/enclave' },
      production: { type: 'boolean', default: false },
      sizes: { type: 'string', default: 'default' },
      engine: { type: 'string' },
      node: { type: 'string', default: '/usr/bin/node' },
      'library-directory': { type: 'string', default: '/usr/lib/x86_64-linux-gnu' },
      'mount-key': { type: 'string', default: '_sgx_mrenclave' },
      'open-model': { type: 'boolean', default: false },
      edmm: { type: 'boolean', default: false },
      job: { type: 'string' },
    },
  })
  const mountKey = values['mount-key']
  if (mountKey !== '_sgx_mrenclave' && mountKey !== '_sgx_mrsigner' && mountKey !== 'none') {
    throw new Error(`--mount-key ${mountKey}: expected _sgx_mrenclave, _sgx_mrsigner or none`)
  }
  const built = await buildEnclave({
    directory: resolve(values.out),
    image: values.production ? 'production' : 'development',
    sizes: values.sizes,
    engine: values.engine ?? engineDirectory(cacheDirectory({ HOME: homedir(), ...process.env })),
    node: values.node,
    libraryDirectory: values['library-directory'],
    mountKey,
    openModel: values['open-model'],
    edmm: values.edmm,
    job: values.job,
    renderer: onPath('gramine-manifest', process.env.PATH ?? ''),
  })
  process.stdout.write(report(built))
  if (built.problems.length > 0) process.exitCode = 1
  if (built.ownBytes > ownCodeBudgetBytes) {
    process.stdout.write(`our own code is over its budget\n`)
    process.exitCode = 1
  }
}
