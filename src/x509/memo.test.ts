import { expect, test } from 'vitest'
import { memoize } from './memo.ts'

test('remembering computes once, forgets the least recently used, and keeps no failure', () => {
  const computed: string[] = []
  const remember = memoize(
    2,
    (text: string) => text,
    (text) => {
      computed.push(text)
      if (text === 'bad') throw new Error('bad')
      return text.toUpperCase()
    },
  )
  for (const text of ['a', 'b', 'a', 'c', 'a', 'b']) expect(remember(text)).toBe(text.toUpperCase())
  expect(computed).toEqual(['a', 'b', 'c', 'b'])
  expect(() => remember('bad')).toThrow('bad')
  expect(() => remember('bad')).toThrow('bad')
  expect(computed.slice(4)).toEqual(['bad', 'bad'])
  expect(remember('b')).toBe('B')
  expect(computed).toHaveLength(6)
})
