/** A bidirectional method over plain bytes, described at run time: what the transports are tested and measured with. */
import { create, createFileRegistry, type DescMethodBiDiStreaming, type MessageShape } from '@bufbuild/protobuf'
import {
  BytesValueSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_wrappers,
} from '@bufbuild/protobuf/wkt'

const bytes = '.google.protobuf.BytesValue'
const file = create(FileDescriptorProtoSchema, {
  name: 'cloister/test/echo.proto',
  package: 'cloister.test',
  syntax: 'proto3',
  dependency: ['google/protobuf/wrappers.proto'],
  service: [
    {
      name: 'Echo',
      method: [{ name: 'Talk', inputType: bytes, outputType: bytes, clientStreaming: true, serverStreaming: true }],
    },
  ],
})
const registry = createFileRegistry(
  create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] }),
)

export type Bytes = MessageShape<typeof BytesValueSchema>

/** /cloister.test.Echo/Talk, bytes in, bytes out. */
export const talk = {
  ...registry.getService('cloister.test.Echo')!.method.talk!,
  input: BytesValueSchema,
  output: BytesValueSchema,
} as unknown as DescMethodBiDiStreaming<typeof BytesValueSchema, typeof BytesValueSchema>

export function message(value: Uint8Array | string): Bytes {
  return create(BytesValueSchema, { value: typeof value === 'string' ? Buffer.from(value) : value })
}
