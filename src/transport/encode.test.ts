import { create, createFileRegistry, type DescMessage, toBinary } from '@bufbuild/protobuf'
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from '@bufbuild/protobuf/wkt'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodePieces } from './encode.ts'

const file = create(FileDescriptorProtoSchema, {
  name: 'encode.proto',
  package: 'test',
  syntax: 'proto3',
  messageType: [
    {
      name: 'Outer',
      field: [
        { name: 'last', number: 2000, type: Type.UINT32 },
        { name: 'parts', number: 1, type: Type.MESSAGE, typeName: '.test.Part', oneofIndex: 0 },
        { name: 'text', number: 16, type: Type.MESSAGE, typeName: '.test.Text', oneofIndex: 0 },
        { name: 'one', number: 3, type: Type.MESSAGE, typeName: '.test.Part' },
        { name: 'many', number: 4, type: Type.MESSAGE, typeName: '.test.Part', label: Label.REPEATED },
      ],
      oneofDecl: [{ name: 'choice' }],
    },
    {
      name: 'Part',
      field: [
        { name: 'number', number: 1, type: Type.UINT32 },
        { name: 'values', number: 3, type: Type.BYTES },
        { name: 'offset', number: 2, type: Type.UINT32 },
      ],
    },
    // What is left to protobuf-es.
    {
      name: 'Text',
      field: [
        { name: 'text', number: 1, type: Type.STRING },
        { name: 'numbers', number: 2, type: Type.UINT32, label: Label.REPEATED },
        { name: 'perhaps', number: 3, type: Type.UINT32, oneofIndex: 0, proto3Optional: true },
      ],
      oneofDecl: [{ name: '_perhaps' }],
    },
  ],
})
const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] }))
const outer = registry.getMessage('test.Outer') as DescMessage

const uint32 = fc.oneof(fc.constantFrom(0, 1, 127, 128, 16_383, 16_384, 2 ** 31, 2 ** 32 - 1), fc.nat(2 ** 32 - 1))
const part = fc.record(
  { number: uint32, offset: uint32, values: fc.uint8Array({ maxLength: 200 }) },
  { requiredKeys: [] },
)
const text = fc.record(
  { text: fc.string(), numbers: fc.array(uint32, { maxLength: 3 }), perhaps: uint32 },
  { requiredKeys: [] },
)
const choice = fc.oneof(
  fc.record({ case: fc.constant('parts'), value: part }),
  fc.record({ case: fc.constant('text'), value: text }),
)
const message = fc.record(
  { last: uint32, one: part, many: fc.array(part, { maxLength: 4 }), choice },
  { requiredKeys: [] },
)

test('the pieces are what protobuf-es writes, whatever the message', () => {
  fc.assert(
    fc.property(message, (init) => {
      const made = create(outer, init)
      expect(Buffer.concat(encodePieces(outer, made)).toString('hex')).toBe(
        Buffer.from(toBinary(outer, made)).toString('hex'),
      )
    }),
    { numRuns: 500 },
  )
})

test('fields that are unknown here are kept', () => {
  const made = create(outer, { last: 1 })
  made.$unknown = [{ no: 7, wireType: 0, data: Uint8Array.of(5) }]
  expect(Buffer.concat(encodePieces(outer, made))).toEqual(Buffer.from(toBinary(outer, made)))
})

test('large values are not copied', () => {
  const values = new Uint8Array(1000)
  const pieces = encodePieces(outer, create(outer, { many: [{ values }] }))
  expect(pieces.some((piece) => piece === values)).toBe(true)
})

test.each([-1, 1.5, 2 ** 32, Number.NaN])('%d is no uint32', (last) => {
  expect(() => encodePieces(outer, create(outer, { last }))).toThrow()
})
