/** The import table of docs/architecture.md. An edge that is not listed fails, and so does a cycle between files. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { expect, test } from 'vitest'

const source = resolve(import.meta.dirname, '../src')

/** module → modules it may import. `a:type` allows types only. Everything may import errors and observability/events. */
const table: Record<string, readonly string[]> = {
  errors: [],
  'observability/events': [],
  models: [],
  data: ['models'],
  engine: ['models'],
  storage: [],
  x509: [],
  transport: [],
  privacy: [],
  attestation: ['x509'],
  keys: ['attestation', 'ratls', 'storage'],
  ratls: ['attestation', 'x509', 'transport:type'],
  federation: ['models', 'privacy', 'storage', 'engine:type', 'transport:type', 'attestation:type'],
  observability: [],
  config: ['attestation'],
  cli: [
    'attestation',
    'config',
    'data',
    'engine',
    'federation',
    'keys',
    'models',
    'observability',
    'ratls',
    'storage',
    'transport',
    'x509',
  ],
  enclave: ['cli'],
  main: ['cli'],
}

const files = readdirSync(source, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .sort()

function moduleOf(file: string): string {
  if (file === join('observability', 'events.ts')) return 'observability/events'
  return file.split('/')[0]!.replace(/\.ts$/, '')
}

interface Edge {
  readonly to: string
  readonly typeOnly: boolean
}

function edgesOf(file: string): Edge[] {
  const text = readFileSync(join(source, file), 'utf8')
  return [...text.matchAll(/^\s*(?:import|export)\s+(type\s)?[^;'"]*?(?:from\s+)?['"](\.\.?\/[^'"]+)['"]/gm)].map(
    ([, type, specifier]) => ({
      to: relative(source, resolve(source, dirname(file), specifier!)),
      typeOnly: type !== undefined,
    }),
  )
}

test('every import between modules is in the table', () => {
  const unlisted = files.flatMap((file) =>
    edgesOf(file).flatMap(({ to, typeOnly }) => {
      const [from, target] = [moduleOf(file), moduleOf(to)]
      if (from === target || target === 'errors' || target === 'observability/events') return []
      const allowed = table[from] ?? []
      return allowed.includes(target) || (typeOnly && allowed.includes(`${target}:type`)) ? [] : [`${file} → ${to}`]
    }),
  )
  expect(unlisted).toEqual([])
})

test('no cycle between files', () => {
  const state = new Map<string, 'open' | 'done'>()
  const cycles: string[] = []
  const visit = (file: string, path: string[]): void => {
    if (state.get(file) === 'done') return
    if (state.get(file) === 'open') {
      cycles.push([...path.slice(path.indexOf(file)), file].join(' → '))
      return
    }
    state.set(file, 'open')
    for (const { to, typeOnly } of edgesOf(file)) if (!typeOnly) visit(to, [...path, file])
    state.set(file, 'done')
  }
  for (const file of files) visit(file, [])
  expect(cycles).toEqual([])
})

test('every edge names a file that exists', () => {
  const dangling = files.flatMap((file) =>
    edgesOf(file)
      .filter(({ to }) => !files.includes(to))
      .map(({ to }) => `${file} → ${to}`),
  )
  expect(dangling).toEqual([])
})
