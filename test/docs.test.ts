/** What the documentation says about the code, held against the code. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { trainOwnModel } from '../examples/own-model.ts'
import { createJavascriptEngine } from '../src/engine/javascript.ts'
import { engineDirectory } from '../src/engine/locate.ts'
import { createTensorflowEngine } from '../src/engine/tensorflow.ts'
import { defaultLimits } from '../src/transport/limits.ts'
import { cacheDirectory, requires } from './requirements.ts'

const root = resolve(import.meta.dirname, '..')
const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'SECURITY.md',
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .map((file) => join('docs', file)),
]
/** Cells of the tables of a page, without the header rows. */
const rows = (page: string): string[][] =>
  read(page)
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )

test('every link to a file leads somewhere', () => {
  const dead = pages.flatMap((page) =>
    [...read(page).matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)]
      .map(([, target]) => join(dirname(page), target!))
      .filter((target) => !existsSync(join(root, target)))
      .map((target) => `${page} → ${target}`),
  )
  expect(dead).toEqual([])
})

test('every source file that a page names exists', () => {
  const dead = pages.flatMap((page) =>
    [...read(page).matchAll(/`((?:src|test|examples|proto|schemas)\/[\w./-]+\.\w+)`/g)]
      .filter(([, file]) => !existsSync(join(root, file!)))
      .map(([, file]) => `${page}: ${file}`),
  )
  expect(dead).toEqual([])
})

test('the import table of docs/architecture.md is that of test/imports.test.ts', () => {
  const table = /const table[^=]*= \{\n([\s\S]*?)\n\}/.exec(read('test/imports.test.ts'))![1]!
  const enforced = new Map(
    [...table.matchAll(/^ {2}'?([\w/]+)'?: \[([^\]]*)\]/gm)].map(([, from, to]) => [
      from!,
      [...to!.matchAll(/'([^']+)'/g)].map(([, name]) => name!).sort(),
    ]),
  )
  const described = new Map(
    rows('docs/architecture.md').map(([name, , imports]) => {
      const from = name!.replaceAll('`', '').replace(/\.ts$|\/$/, '')
      const [values, types = ''] = imports!.split('types of')
      const names = (text: string): string[] => [...text.matchAll(/`([\w/]+)`/g)].map(([, to]) => to!)
      return [from, [...names(values!), ...names(types).map((to) => `${to}:type`)].sort()]
    }),
  )
  expect(described.size).toBeGreaterThan(10)
  // Directories that do not exist yet have a line in the test's table only.
  for (const from of enforced.keys()) {
    if (!existsSync(join(root, 'src', from)) && !existsSync(join(root, `src/${from}.ts`))) enforced.delete(from)
  }
  for (const [from, to] of enforced)
    enforced.set(
      from,
      to.filter((name) => enforced.has(name.replace(':type', ''))),
    )
  expect(Object.fromEntries(described)).toEqual(Object.fromEntries(enforced))
})

test.each(['job', 'deployment'])('docs/configuration.md has every field of a %s', (kind) => {
  const page = read('docs/configuration.md')
  const missing = fieldsOf(JSON.parse(read(`schemas/${kind}.schema.json`))).filter(
    (field) => !new RegExp(`[\`.]${field}[\`.]`).test(page),
  )
  expect(missing).toEqual([])
})

/** Names of properties at any depth; a policy's have a page of their own. */
function fieldsOf(schema: { readonly [key: string]: unknown }): string[] {
  const { properties = {}, ...rest } = schema
  const own = Object.entries(properties as Record<string, { readonly [key: string]: unknown }>)
    .filter(([name]) => name !== 'admission' && name !== '$schema')
    .flatMap(([name, inner]) => [name, ...fieldsOf(inner)])
  const nested = Object.values(rest)
    .flat()
    .filter((value) => typeof value === 'object' && value !== null)
  return [...own, ...nested.flatMap((value) => fieldsOf(value as { readonly [key: string]: unknown }))]
}

describe('docs/limits.md', () => {
  const page = rows('docs/limits.md').map((cells) => ({ cells, name: cells[0]!.replaceAll('`', '') }))
  const units: Readonly<Record<string, number>> = {
    KiB: 2 ** 10,
    Mi: 2 ** 20,
    MiB: 2 ** 20,
    KB: 1e3,
    MB: 1e6,
    h: 3_600_000,
  }
  const amount = (cell: string): number => {
    const [, number, unit] = /^([\d,]+)(?: (\w+))?$/.exec(cell)!
    return Number(number!.replaceAll(',', '')) * (unit === undefined ? 1 : units[unit]!)
  }

  test.each(Object.entries(defaultLimits))('%s of the transport', (name, value) => {
    const listed = page.filter((row) => row.name === name)
    expect(listed).toHaveLength(1)
    expect(amount(listed[0]!.cells[1]!)).toBe(value)
  })

  test.each(['ServerLimits', 'CredentialLimits'])('each field of %s', (name) => {
    const file = name === 'ServerLimits' ? 'src/federation/server-options.ts' : 'src/ratls/credentials.ts'
    const body = new RegExp(`interface ${name} \\{([\\s\\S]*?)\\n\\}`).exec(read(file))![1]!
    const fields = [...body.matchAll(/readonly (\w+):/g)].map(([, field]) => field!)
    expect(fields.length).toBeGreaterThan(2)
    expect(page.map((row) => row.name)).toEqual(expect.arrayContaining(fields))
  })

  test('has every timeout that is a number in the sources', () => {
    const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    const named =
      /\b(\w*(?:[tT]imeout|[lL]inger|[rR]etry(?:Delay)?|[wW]ait|[dD]eadline|[gG]race|[hH]ello|[wW]ithoutWorkers)Ms)\b(?: =|:) [1-9]/g
    const timeouts = files
      .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
      .flatMap((file) => [...read(join('src', file)).matchAll(named)].map(([, name]) => name!))
    expect(timeouts.length).toBeGreaterThan(15)
    const names = new Set(page.map(({ name }) => name))
    expect(timeouts.filter((name) => !names.has(name))).toEqual([])
  })

  const constants = page.filter(({ cells }) => cells[4] !== undefined && /^[\d,]+( \w?i?B?| h)?$/.test(cells[1]!))
  test.each(constants.map(({ name, cells }) => [name, cells[1]!, cells[2]!.replaceAll('`', '')] as const))(
    '%s is %s',
    (name, cell, file) => {
      const text = read(file)
      const lines = text.split('\n').filter((line) => new RegExp(`\\b${name}\\b`).test(line))
      const numbers = /[\d_]+(?: (?:\*\*|<<|\*) [\d_]+)*(?: \* hourMs)?/g
      const values = lines.flatMap((line) => [...line.matchAll(numbers)].map(([expression]) => evaluate(expression)))
      expect(values).toContain(amount(cell))
    },
  )
})

/** Products, powers and shifts of numbers, as limits are written. */
function evaluate(expression: string): number {
  const parts = expression.replaceAll('_', '').replaceAll('hourMs', '3600000').split(' ')
  return parts.slice(1).reduce((value, part, index) => {
    if (index % 2 === 0) return value
    const [operator, operand] = [parts[index], Number(part)]
    return operator === '**' ? value ** operand : operator === '<<' ? value * 2 ** operand : value * operand
  }, Number(parts[0]))
}

test('README has exactly two set-up commands', () => {
  const setup = /## Set up[\s\S]*?```sh\n([\s\S]*?)```/.exec(read('README.md'))![1]!
  expect(
    setup
      .trim()
      .split('\n')
      .map((line) => line.replace(/\s*#.*/, '')),
  ).toEqual(['npm ci && npm start', 'npm test'])
})

describe('examples/own-model.ts', () => {
  test('learns in JavaScript', async () => {
    const { losses, accuracy } = await trainOwnModel(createJavascriptEngine(), 60)
    expect(losses.at(-1)).toBeLessThan(losses[0]! / 2)
    expect(accuracy).toBeGreaterThan(0.8)
  })

  requires('tensorflow-library').describe('traced', () => {
    test('learns the same', async () => {
      const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)
      const traced = createTensorflowEngine({ directory, threads: 1 })
      const [one, other] = [await trainOwnModel(traced, 20), await trainOwnModel(createJavascriptEngine(), 20)]
      one.losses.forEach((loss, index) => {
        expect(loss).toBeCloseTo(other.losses[index]!, 4)
      })
      await traced.close()
    })
  })
})
