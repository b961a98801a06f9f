/**
 * docs/errors.md lists every error code once and no other; a code belongs to one error class; every error has a hint. Codes are read
 * from the type argument of CodedError, through the names of unions, `(typeof list)[number]` and `keyof typeof table`.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'

const root = resolve(import.meta.dirname, '..')
const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts') && !file.includes('/gen/'))
  .sort()
  .map((file) => ({ file, text: withoutComments(readFileSync(join(root, 'src', file), 'utf8')) }))

/** Strings stay as they are; what stands in a comment declares nothing. */
function withoutComments(text: string): string {
  return text.replace(/('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")|\/\*[\s\S]*?\*\/|(?<=^|[\s;,{(])\/\/[^\n]*/gm, '$1')
}

/** From `start` to what closes the bracket before it; quoted text does not count. */
function balanced(text: string, start: number, [open, close]: readonly [string, string]): string {
  let depth = 1
  const scanner = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|[^'"`]/g
  scanner.lastIndex = start
  for (let match = scanner.exec(text); match !== null; match = scanner.exec(text)) {
    depth += match[0] === open ? 1 : match[0] === close ? -1 : 0
    if (depth === 0) return text.slice(start, match.index)
  }
  throw new Error(`no ${close} for ${open}: ${text.slice(start, start + 80)}`)
}

const literals = (text: string): string[] => [...text.matchAll(/'([a-z0-9-]+)'/g)].map(([, code]) => code!)

/** The strings that a type stands for. */
function codesOf(type: string, text: string): string[] {
  const list = /^\(typeof (\w+)\)\[number\]$/.exec(type.trim())?.[1]
  if (list !== undefined) return literals(initializer(list, '[', ']', text))
  const table = /^keyof typeof (\w+)$/.exec(type.trim())?.[1]
  if (table !== undefined) {
    return [...initializer(table, '{', '}', text).matchAll(/^\s*'([a-z0-9-]+)':/gm)].map(([, code]) => code!)
  }
  const names = [...type.replace(/'[^']*'/g, '').matchAll(/\b[A-Z]\w*\b/g)].map(([name]) => name)
  return [...literals(type), ...names.flatMap((name) => codesOf(alias(name, text), text))]
}

function initializer(name: string, open: string, close: string, text: string): string {
  const at = new RegExp(`const ${name} = \\${open}`).exec(text)
  if (at === null) throw new Error(`${name} is no constant of its file`)
  return balanced(text, at.index + at[0].length, [open, close])
}

function alias(name: string, text: string): string {
  const found = new RegExp(
    `type ${name} =([^=]*?)(?=\\n\\n|\\n(?:export|const|class|interface|function|type)\\b|$)`,
  ).exec(text)
  if (found === null) throw new Error(`${name} is no union of its file`)
  return found[1]!
}

const classes = sources.flatMap(({ text }) =>
  [...text.matchAll(/class (\w+) extends CodedError</g)].map(({ 1: name, index, 0: head }) => ({
    name: name!,
    codes: codesOf(balanced(text, index + head.length, ['<', '>']), text),
  })),
)

/** Codes that are no error of a class: reasons of a refusal, the warning of a platform, words on the wire, a bug. */
const source = (file: string): string => sources.find((one) => one.file === join(...file.split('/')))!.text
const reasons = codesOf('MismatchCode', source('attestation/policy-format.ts'))
const others = [
  ...reasons,
  'platform-simulated',
  'stopped',
  'service-unknown',
  'method-unknown',
  'reason-unreadable',
  'internal',
]

const documented = [
  ...readFileSync(join(root, 'docs/errors.md'), 'utf8').matchAll(/^\| `([a-z0-9-]+)`\s+\|(.*)$/gm),
].map(([, code, cells]) => ({ code: code!, cells: cells!.split('|').slice(0, -1) }))

test('codes are found in each form in which they are declared', () => {
  const found = Object.fromEntries(classes.map(({ name, codes }) => [name, codes]))
  expect(found.ConfigError).toEqual(['config-unreadable', 'config-not-json', 'config-invalid'])
  expect(found.FederationError).toContain('refused-by-server')
  expect(found.TransportError).toContain('connection-closed')
  expect(found.AttestationError).toEqual(expect.arrayContaining(['quote-truncated', 'clock-backwards']))
  expect(found.RatlsError).toContain('ratls-refused-by-peer')
  expect(found).not.toHaveProperty('CodedErrorForTest')
  expect(classes.filter(({ codes }) => codes.length === 0)).toEqual([])
  expect(classes.length).toBe(sources.reduce((sum, { text }) => sum + text.split(' extends CodedError<').length - 1, 0))
})

test('a code belongs to one class', () => {
  const all = [...classes.flatMap(({ codes }) => codes), ...others]
  expect(all.filter((code, index) => all.indexOf(code) !== index)).toEqual([])
})

test('a code that is written as a public error is known', () => {
  const known = new Set([...classes.flatMap(({ codes }) => codes), ...others])
  const written = sources.flatMap(({ text }) => [...text.matchAll(/\bcode: '([a-z0-9-]+)'/g)].map(([, code]) => code!))
  expect(written).toContain('platform-simulated')
  expect(written.filter((code) => !known.has(code))).toEqual([])
})

test('docs/errors.md lists every code, and no other', () => {
  const all = [...classes.flatMap(({ codes }) => codes), ...others].sort()
  expect(documented.map(({ code }) => code).sort()).toEqual(all)
})

test('each row says what the code means and what to do', () => {
  const short = documented.filter(({ cells }) => cells.length !== 2 || cells.some((cell) => cell.trim().length < 3))
  expect(short).toEqual([])
})

test('each code is used, so that the list stays that of what can happen', () => {
  const all = sources.map(({ text }) => text).join('\n')
  const composed = /^(certificate|crl|tcb-info|qe-identity)-(expired|not-yet-valid)$/
  const unused = classes
    .flatMap(({ codes }) => codes)
    .filter((code) => !composed.test(code) && all.split(`'${code}'`).length <= 2)
  expect(unused).toEqual([])
})

test('every error is made with a hint, and none is empty', () => {
  const names = classes.map(({ name }) => name).filter((name) => name !== 'TransportError')
  const made = sources.flatMap(({ file, text }) =>
    [...text.matchAll(new RegExp(`new (?:${names.join('|')})\\(`, 'g'))].map(({ index, 0: head }) => ({
      file,
      call: balanced(text, index + head.length, ['(', ')']),
    })),
  )
  expect(made.length).toBeGreaterThan(150)
  expect(made.filter(({ call }) => !/\bhint\b/.test(call)).map(({ file, call }) => `${file}: ${call}`)).toEqual([])
  const emptyHint = /\bhint: *(?:''|""|``)/
  expect(made.filter(({ call }) => emptyHint.test(call)).map(({ file, call }) => `${file}: ${call}`)).toEqual([])
  expect(sources.filter(({ text }) => /\bhint = (?:''|""|``)/.test(text)).map(({ file }) => file)).toEqual([])
  // TransportError takes its hint from a table, which the compiler keeps complete.
  const hints = initializer('hints', '{', '}', source('transport/transport-error.ts'))
  expect([...hints.matchAll(/':\s*(?:''|"")/g)]).toEqual([])
})
