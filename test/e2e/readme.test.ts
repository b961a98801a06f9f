/** README.md says only what is so: its two set-up commands, its commands, its links. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { root, Sandbox } from './program.ts'

const readme = readFileSync(join(root, 'README.md'), 'utf8')

test('setting up takes exactly two commands, and npm has both', () => {
  const block = /```sh\n([\s\S]*?)```/.exec(readme)?.[1] ?? ''
  const commands = block
    .trim()
    .split('\n')
    .map((line) => line.replace(/\s*#.*/, ''))
  expect(commands).toEqual(['npm ci && npm start', 'npm test'])
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object }
  expect(Object.keys(scripts)).toEqual(expect.arrayContaining(['start', 'test']))
  expect(scripts).toMatchObject({ start: 'node dist/main.js start', prepare: 'npm run build' })
})

test('every command and option that the documentation names exists', async () => {
  const sandbox = new Sandbox()
  const pages = ['README.md', 'docs/cli.md'].map((page) => readFileSync(join(root, page), 'utf8')).join('\n')
  const named = [...pages.matchAll(/`cloister ([a-z][^`]*)`((?:, `[a-z]+`)*)/g)].flatMap(([, command, siblings]) => {
    const [first] = command!.split(' ')
    // "`cloister data fetch`, `inspect`": the words after it are commands of the same group or, as a whole, others.
    const others = [...siblings!.matchAll(/`([a-z]+)`/g)].map(([, name]) => `${first} ${name}`)
    return [command!, ...others]
  })
  expect(named.length).toBeGreaterThan(8)
  const asked = new Map<string, string[]>()
  for (const command of named) {
    const words = command.split(' ')
    const path = words.slice(0, words.findIndex((word) => !/^[a-z]+$/.test(word)) >>> 0)
    const options = words.filter((word) => word.startsWith('--'))
    asked.set(path.join(' '), [...(asked.get(path.join(' ')) ?? []), ...options])
  }
  for (const [path, options] of asked) {
    const { status, out, err } = await sandbox.run([...path.split(' '), '--help'])
    expect({ path, status, err }).toEqual({ path, status: 0, err: '' })
    expect(out).toMatch(new RegExp(`^Usage: cloister ${path}\\b`))
    for (const option of options) expect(out).toContain(option)
  }
})

test('its links lead somewhere', () => {
  const targets = [...readme.matchAll(/\]\(([^)#:]+)\)/g)].map(([, target]) => target!)
  expect(targets.length).toBeGreaterThan(3)
  // Written by the longer runs, not by a clone.
  const missing = targets.filter((target) => !existsSync(join(root, target)))
  expect(missing.filter((target) => target !== 'docs/results/')).toEqual([])
})
