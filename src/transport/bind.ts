// SPDX-License-Identifier: Apache-2.0
/** Binds a listening socket and says where. */
import type { AddressInfo, Server } from 'node:net'
import { TransportError } from './transport-error.ts'

/** host:port as bound, an IPv6 host in brackets. */
export async function bind(server: Server, host: string, port: number): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    const refuse = (cause: Error): void => {
      reject(
        new TransportError('address-unusable', `expected to listen on ${host}:${port}, got: ${cause.message}`, {
          cause,
        }),
      )
    }
    server.once('error', refuse)
    server.listen(port, host, () => {
      server.off('error', refuse)
      resolve()
    })
  })
  const bound = server.address() as AddressInfo
  return bound.family === 'IPv6' ? `[${bound.address}]:${bound.port}` : `${bound.address}:${bound.port}`
}
