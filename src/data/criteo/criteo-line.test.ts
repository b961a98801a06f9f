import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isCategoryMissing, labelOf, missingInteger, parseCriteoLine, rowWords } from './criteo-line.ts'
import { LineSplitter, maximumLineBytes } from './lines.ts'

const encoder = new TextEncoder()

function parse(text: string | Uint8Array): { reason: string | undefined; row: Int32Array } {
  const bytes = typeof text === 'string' ? encoder.encode(text) : text
  const row = new Int32Array(rowWords)
  return { reason: parseCriteoLine(bytes, 0, bytes.length, row, 0), row }
}

const integers = ['1', '-2', '', '0', '2147483647', '-2147483647', '7', '8', '9', '10', '11', '', '13']
const categories = Array.from({ length: 26 }, (_, column) => (column === 4 ? '' : (0x68fd1e60 + column).toString(16)))
const good = ['1', ...integers, ...categories]
const withField = (column: number, text: string): string => good.with(column - 1, text).join('\t')

test('a line in the format of the challenge', () => {
  const { reason, row } = parse(good.join('\t'))
  expect(reason).toBeUndefined()
  expect(labelOf(row[0]!)).toBe(1)
  expect([...row.subarray(1, 14)]).toEqual(integers.map((text) => (text === '' ? missingInteger : Number(text))))
  expect([...row.subarray(14)]).toEqual(categories.map((text) => (text === '' ? 0 : Number.parseInt(text, 16))))
  expect(categories.map((_, column) => isCategoryMissing(row[0]!, column))).toEqual(
    categories.map((text) => text === ''),
  )
})

test('CRLF, capitals, short and greatest values; the last category may be empty', () => {
  expect(parse(`${good.join('\t')}\r`).reason).toBeUndefined()
  const { reason, row } = parse(withField(40, 'FFFFFFFF'))
  expect(reason).toBeUndefined()
  expect(row[39]! >>> 0).toBe(0xffffffff)
  const last = parse(withField(40, ''))
  expect(last.reason).toBeUndefined()
  expect(isCategoryMissing(last.row[0]!, 25)).toBe(true)
  expect(parse(withField(15, 'a')).row[14]).toBe(10)
})

test.each([
  ['nothing', '', 'the line is empty'],
  ['a label of 2', withField(1, '2'), 'column 1: expected 0 or 1'],
  ['no label, as in test.txt', good.slice(1).with(0, '24').join('\t'), 'column 1: expected 0 or 1'],
  ['too few columns', good.slice(0, 39).join('\t'), 'expected 40 columns, got 39'],
  ['a label alone', '1', 'expected 40 columns, got 1'],
  ['too many columns', `${good.join('\t')}\tab`, 'expected 40 columns, got more'],
  ['one more, empty', `${good.join('\t')}\t`, 'expected 40 columns, got more'],
  ['an integer beyond 32 bits', withField(2, '2147483648'), 'column 2: expected a 32-bit integer'],
  ['a long integer', withField(14, '00000000001'), 'column 14: expected a 32-bit integer'],
  ['a lone minus', withField(3, '-'), 'column 3: expected a 32-bit integer'],
  ['a fraction', withField(3, '1.5'), 'column 3: expected a 32-bit integer'],
  ['a category that is not hexadecimal', withField(15, '68fd1e6g'), 'column 15: expected at most 8 hexadecimal digits'],
  ['a category of 9 digits', withField(40, '123456789'), 'column 40: expected at most 8 hexadecimal digits'],
  ['a NUL', withField(20, 'ab\0d'), 'column 20: expected at most 8 hexadecimal digits'],
  ['a CR within', withField(20, 'ab\r'), 'column 20: expected at most 8 hexadecimal digits'],
  ['text outside of ASCII', withField(20, 'é'), 'column 20: expected at most 8 hexadecimal digits'],
])('refused: %s', (_, line, reason) => {
  expect(parse(line).reason).toContain(reason)
})

test('any bytes are parsed or refused, and a refusal repeats none of them', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
      const { reason } = parse(bytes)
      if (reason !== undefined)
        expect(reason).toMatch(/^(the line is empty|column \d+: expected [\w -]+|expected 40 columns, got \w+)$/)
    }),
  )
})

test('what is written is read again', () => {
  const integer = fc.option(fc.integer({ min: -(2 ** 31) + 1, max: 2 ** 31 - 1 }))
  const value = fc.option(fc.integer({ min: 0, max: 2 ** 32 - 1 }))
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 1 }),
      fc.array(integer, { minLength: 13, maxLength: 13 }),
      fc.array(value, { minLength: 26, maxLength: 26 }),
      (label, numbers, values) => {
        const line = [label, ...numbers.map((n) => n ?? ''), ...values.map((v) => v?.toString(16) ?? '')].join('\t')
        const { reason, row } = parse(line)
        expect(reason).toBeUndefined()
        expect(labelOf(row[0]!)).toBe(label)
        expect([...row.subarray(1, 14)]).toEqual(numbers.map((n) => n ?? missingInteger))
        expect(Array.from(row.subarray(14), (v, c) => (isCategoryMissing(row[0]!, c) ? null : v >>> 0))).toEqual(values)
      },
    ),
  )
})

test('lines come out the same however the stream is cut; overlong ones are told once', () => {
  const line = fc.oneof(
    fc.string({ maxLength: 20 }),
    fc.constant('x'.repeat(maximumLineBytes)),
    fc.constant('y'.repeat(maximumLineBytes + 1)),
  )
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1 }), (lines, cuts) => {
      const bytes = encoder.encode(lines.map((text) => `${text.replaceAll('\n', '')}\n`).join(''))
      const seen: string[] = []
      const splitter = new LineSplitter({
        line: (chunk, start, end) => seen.push(new TextDecoder().decode(chunk.slice(start, end))),
        overlong: () => seen.push('overlong'),
      })
      for (let at = 0, cut = 0; at < bytes.length; cut++) {
        const end = at + cuts[cut % cuts.length]!
        splitter.push(bytes.slice(at, end))
        at = end
      }
      splitter.end()
      const decoded = lines.map((text) => new TextDecoder().decode(encoder.encode(text.replaceAll('\n', ''))))
      expect(seen).toEqual(decoded.map((text) => (text.length > maximumLineBytes ? 'overlong' : text)))
    }),
  )
})
