/**
 * Tests that need something of the machine say so by name: `requires('tensorflow-library').describe('…', …)`. Where it is absent they skip
 * with the reason in their title; with CLOISTER_TEST_REQUIRE=all (set by .ci/run) absence is a failure instead.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe } from 'vitest'

export const sharedDirectory = resolve(import.meta.dirname, '../../shared')
export const cacheDirectory =
  process.env.CLOISTER_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'cloister')
/** A Python with tensorflow-cpu, tensorboard, grpcio and dcap-qvl; `.ci/run` makes it. */
export const python = process.env.CLOISTER_TEST_PYTHON ?? join(cacheDirectory, 'test-python/bin/python')

export const engineDirectory =
  process.env.CLOISTER_ENGINE ?? join(cacheDirectory, `engine/tensorflow-2.21.0-${process.platform}-${process.arch}`)

/** Prometheus and promtool; `.ci/run` puts them there. */
const prometheusDirectory = process.env.CLOISTER_TEST_PROMETHEUS ?? join(cacheDirectory, 'test-prometheus/usr/bin')
export const promtool = join(prometheusDirectory, 'promtool')
export const prometheus = join(prometheusDirectory, 'prometheus')
/** Renders the chart; `.ci/run` builds it. */
export const helm = process.env.CLOISTER_TEST_HELM ?? join(cacheDirectory, 'test-kubernetes/helm')
/** A Python with what deploy/test/requirements.txt lists, PyYAML among it; `.ci/run` makes it. */
export const lintersPython = process.env.CLOISTER_TEST_LINTERS_PYTHON ?? join(cacheDirectory, 'test-linters/bin/python')
/** What draws pages in tests. */
export const chromium = process.env.CLOISTER_TEST_CHROMIUM ?? '/usr/bin/chromium'

/** Makes Node behave as it does inside Gramine where that differs: `node --require`. */
export const gramineLimits = join(sharedDirectory, 'tools/gramine-limits.cjs')

const requirements = {
  'tensorflow-library': () =>
    existsSync(
      join(engineDirectory, process.platform === 'darwin' ? 'libtensorflow_cc.2.dylib' : 'libtensorflow_cc.so.2'),
    )
      ? undefined
      : 'the TensorFlow library: cloister engine install',
  cifar10: () =>
    existsSync(join(sharedDirectory, 'data/cifar10/data_batch_1.bin')) ? undefined : '../shared/data/cifar10',
  'attestation-vectors': () =>
    existsSync(join(sharedDirectory, 'attestation-vectors/vectors.json')) ? undefined : '../shared/attestation-vectors',
  age: () =>
    spawnSync('age', ['--version']).status === 0 ? undefined : 'age (https://age-encryption.org) on the PATH',
  cosign: () => (spawnSync('cosign', ['version']).status === 0 ? undefined : 'cosign on the PATH'),
  gramine: () =>
    ['gramine-direct', 'gramine-manifest'].every((program) => spawnSync(program, ['--help']).error === undefined)
      ? undefined
      : 'Gramine: gramine-direct and gramine-manifest on the PATH',
  'gramine-limits': () => (existsSync(gramineLimits) ? undefined : '../shared/tools/gramine-limits.cjs'),
  prometheus: () =>
    existsSync(promtool) && existsSync(prometheus)
      ? undefined
      : 'Prometheus and promtool (CLOISTER_TEST_PROMETHEUS: their directory)',
  helm: () => (existsSync(helm) ? undefined : 'helm (CLOISTER_TEST_HELM)'),
  'python-yaml': () =>
    spawnSync(lintersPython, ['-c', 'import yaml']).status === 0
      ? undefined
      : 'Python with PyYAML (CLOISTER_TEST_LINTERS_PYTHON)',
  chromium: () => (existsSync(chromium) ? undefined : 'Chromium (CLOISTER_TEST_CHROMIUM)'),
  'python-tensorflow': () => pythonHas('tensorflow'),
  'python-tensorboard': () => pythonHas('tensorboard'),
  'python-grpcio': () => pythonHas('grpc'),
  'python-dcap-qvl': () => pythonHas('dcap_qvl'),
} as const

/** In no registry that CI reaches: absent, tests skip there too, by name. */
const unobtainable: ReadonlySet<Requirement> = new Set<Requirement>(['gramine'])

export type Requirement = keyof typeof requirements

function pythonHas(module: string): string | undefined {
  const probe = `import importlib.util,sys; sys.exit(importlib.util.find_spec(${JSON.stringify(module)}) is None)`
  return spawnSync(python, ['-c', probe]).status === 0 ? undefined : `Python with ${module} (CLOISTER_TEST_PYTHON)`
}

export function requires(...needs: Requirement[]) {
  const absent = needs.filter((need) => requirements[need]() !== undefined)
  const missing = absent.map((need) => requirements[need]())
  return {
    available: missing.length === 0,
    describe(title: string, body: () => void): void {
      if (missing.length === 0) {
        describe(title, body)
      } else if (process.env.CLOISTER_TEST_REQUIRE === 'all' && !absent.every((need) => unobtainable.has(need))) {
        throw new Error(`${title}: needs ${missing.join(', ')}`)
      } else {
        const skipping = describe.skip
        skipping(`${title} [skipped: needs ${missing.join(', ')}]`, body)
      }
    },
  }
}
