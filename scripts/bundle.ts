// SPDX-License-Identifier: Apache-2.0
/**
 * The application of the enclave image: `app/enclave.mjs`, one file with everything that runs inside, and `app/koffi.node`. The same bytes
 * from the same sources wherever it is built: no path of the build machine is in them.
 */
import { cp, mkdir, readFile, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { build, type Metafile, type Plugin } from 'esbuild'

const root = resolve(import.meta.dirname, '..')

export interface BundleOptions {
  /** Gets `app/`; what was in that is replaced. */
  readonly directory: string
  readonly image: 'development' | 'production'
  /** A checkout with its dependencies; another than this one only to show that it makes no difference. */
  readonly root?: string
}

export interface Bundle {
  /** Of everything in the file, by origin; bytes as they are in the bundle. */
  readonly ownBytes: number
  readonly packages: readonly PackageShare[]
  readonly totalBytes: number
  /** What the file takes from outside of itself: modules of Node and files beside it. */
  readonly imports: readonly string[]
}

export interface PackageShare {
  readonly name: string
  readonly version: string
  readonly license: string
  readonly bytes: number
}

export async function bundle({ directory, image, root: from = root }: BundleOptions): Promise<Bundle> {
  const app = join(directory, 'app')
  await rm(app, { recursive: true, force: true })
  await mkdir(app, { recursive: true })
  const { metafile } = await build({
    absWorkingDir: from,
    entryPoints: ['src/enclave.ts'],
    outfile: join(app, 'enclave.mjs'),
    bundle: true,
    format: 'esm',
    platform: 'node',
    // node-fetch is what TensorFlow.js would load models with: nothing here does, and there is none in the image.
    external: ['*/koffi.node', 'node-fetch'],
    mainFields: ['module', 'main'],
    target: 'node20',
    charset: 'utf8',
    metafile: true,
    legalComments: 'none',
    // Unminified: whoever wants to know what runs inside the enclave can read it.
    minify: false,
    // TensorFlow.js is CommonJS here and there, and asks for Node's modules by require.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'\nconst require = __createRequire(import.meta.url)",
    },
    plugins: [koffiBesideTheBundle, tensorflowAlone, metricsAlone, kindOfImage(image)],
    logLevel: 'warning',
  })
  const koffi = `node_modules/@koromix/koffi-${process.platform}-${process.arch}/${process.platform}_${process.arch}/koffi.node`
  await cp(join(from, koffi), join(app, 'koffi.node'))
  return sharesOf(metafile, from)
}

/** koffi looks for its binary in a dozen places of node_modules; in the image there is one. */
const koffiBesideTheBundle: Plugin = {
  name: 'koffi beside the bundle',
  setup(build) {
    build.onLoad({ filter: /node_modules\/koffi\/index\.js$/ }, () => ({
      contents: "export default require('./koffi.node')",
      loader: 'js',
    }))
  },
}

/** TensorFlow.js without its graphics, its downloads and its model converter: what an enclave has no use for, it need not trust. */
const tensorflowAlone: Plugin = {
  name: 'TensorFlow.js alone',
  setup(build) {
    build.onLoad({ filter: /node_modules\/@tensorflow\/tfjs\/dist\/index\.js$/ }, () => ({
      contents: [
        "import '@tensorflow/tfjs-core/dist/register_all_gradients'",
        "import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops'",
        "import '@tensorflow/tfjs-backend-cpu'",
        "export * from '@tensorflow/tfjs-core'",
        "export * from '@tensorflow/tfjs-layers'",
      ].join('\n'),
      loader: 'js',
    }))
  },
}

/** prom-client without what asks the operating system, forks, or pushes to others. */
const metricsAlone: Plugin = {
  name: 'prom-client alone',
  setup(build) {
    build.onLoad({ filter: /node_modules\/prom-client\/lib\/(cluster|defaultMetrics|pushgateway)\.js$/ }, () => ({
      contents: 'module.exports = {}',
      loader: 'js',
    }))
  },
}

function kindOfImage(image: BundleOptions['image']): Plugin {
  return {
    name: 'kind of image',
    setup(build) {
      build.onLoad({ filter: /\/src\/cli\/image\.ts$/ }, async ({ path }) => {
        const source = await readFile(path, 'utf8')
        const contents = source.replace(/ = 'development'$/m, ` = '${image}'`)
        if (image === 'production' && contents === source) throw new Error(`${path}: expected a development build`)
        return { contents, loader: 'ts' }
      })
    },
  }
}

async function sharesOf(metafile: Metafile, from: string): Promise<Bundle> {
  const [output] = Object.values(metafile.outputs)
  const bytes = new Map<string, number>()
  let ownBytes = 0
  for (const [path, { bytesInOutput }] of Object.entries(output!.inputs)) {
    const [, name] = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path) ?? []
    if (name === undefined) ownBytes += bytesInOutput
    else if (bytesInOutput > 0) bytes.set(name, (bytes.get(name) ?? 0) + bytesInOutput)
  }
  const packages: PackageShare[] = []
  for (const name of [...bytes.keys()].sort()) {
    const described: unknown = JSON.parse(await readFile(join(from, 'node_modules', name, 'package.json'), 'utf8'))
    const { version, license } = described as { version: string; license?: string }
    packages.push({ name, version, license: license ?? 'NOASSERTION', bytes: bytes.get(name)! })
  }
  const imports = [...new Set(output!.imports.map(({ path }) => path))].sort()
  return { ownBytes, packages, totalBytes: output!.bytes, imports }
}
