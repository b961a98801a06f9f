// SPDX-License-Identifier: Apache-2.0
/** The message byte by byte; that TensorFlow loads and runs it is tested in engine/saved-model.slow.test.ts. */
import { expect, test } from 'vitest'
import { encodeSavedModel, exportTooLarge } from './tensorflow-model.ts'

test('a SavedModel as protocol buffers write it', () => {
  const parts = encodeSavedModel({
    graph: Uint8Array.of(0xca, 0xfe),
    inputs: new Map([['x', { name: 'dense', shape: [200, 3], dtype: 'float32' }]]),
    outputs: new Map([['p', { name: 'out', shape: [], dtype: 'int32' }]]),
  })
  const hex = (text: string) => Buffer.from(text).toString('hex')
  const input = `0a07${hex('dense:0')}10011a09120308c80112020803`
  const output = `0a05${hex('out:0')}10031a00`
  const entry = (key: string, value: string, field: string) => {
    const body = `0a01${hex(key)}12${(value.length / 2).toString(16).padStart(2, '0')}${value}`
    return `${field}${(body.length / 2).toString(16).padStart(2, '0')}${body}`
  }
  const method = hex('tensorflow/serving/predict')
  const signature = `${entry('x', input, '0a')}${entry('p', output, '12')}1a1a${method}`
  const named = `0a0f${hex('serving_default')}12${(signature.length / 2).toString(16)}${signature}`
  const signatures = `2a${(named.length / 2).toString(16)}${named}`
  const information = `0a0f2205${hex('serve')}2a06${hex('2.21.0')}`
  const metaGraph = `${information}1202cafe${signatures}`
  const size = (metaGraph.length / 2).toString(16)
  expect(Buffer.concat(parts).toString('hex')).toBe(`080112${size}${metaGraph}`)
})

test('what would be 2 GiB is refused', () => {
  // No such memory is touched: only its length is looked at.
  const graph = new Uint8Array(0)
  Object.defineProperty(graph, 'length', { value: 2 ** 31 })
  expect(() => encodeSavedModel({ graph, inputs: new Map(), outputs: new Map() })).toThrowError(
    expect.objectContaining({ code: 'export-too-large' }),
  )
  expect(exportTooLarge(5e9).message).toContain('5000000000')
})
