/** docs/errors.md lists every error code, each once; a code belongs to one error class. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'

const root = resolve(import.meta.dirname, '..')
const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .sort()

interface ErrorClass {
  readonly name: string
  readonly codes: readonly string[]
}

function literals(text: string): string[] {
  return [...text.matchAll(/'([a-z0-9-]+)'/g)].map(([, code]) => code!)
}

function errorClasses(): ErrorClass[] {
  return sources.flatMap((file) => {
    const text = readFileSync(join(root, 'src', file), 'utf8')
    return [...text.matchAll(/export class (\w+) extends CodedError<([^>]+)>/g)].map(([, name, union]) => {
      const aliases = [...union!.matchAll(/\b([A-Z]\w+)\b/g)].map(([, alias]) => {
        const definition = text.match(new RegExp(`type ${alias} =([^;]*?)\\n\\n`))
        if (definition === null) throw new Error(`${file}: ${alias} is not a union written in this file`)
        return definition[1]!
      })
      return { name: name!, codes: literals([union!, ...aliases].join('\n')) }
    })
  })
}

const classes = errorClasses()
const documented = [...readFileSync(join(root, 'docs/errors.md'), 'utf8').matchAll(/^\| `([a-z0-9-]+)` \|/gm)].map(
  ([, code]) => code!,
)

test('every error class has codes', () => {
  expect(classes.filter(({ codes }) => codes.length === 0)).toEqual([])
  expect(classes.length).toBeGreaterThan(0)
})

test('a code belongs to one class', () => {
  const all = classes.flatMap(({ codes }) => codes)
  expect(all.filter((code, index) => all.indexOf(code) !== index)).toEqual([])
})

test('docs/errors.md lists every code, and no other', () => {
  const all = [...classes.flatMap(({ codes }) => codes), 'internal'].sort()
  expect([...documented].sort()).toEqual(all)
})
