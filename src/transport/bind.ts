// SPDX-License-Identifier: Apache-2.0
/** Binds a listening socket and says where. */
import type { AddressInfo, Server } from 'node:net'

/** host:port as bound, an IPv6 host in brackets. */
export async function bind(server: Server, host: string, port: number): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  const bound = server.address() as AddressInfo
  return bound.family === 'IPv6' ? `[${bound.address}]:${bound.port}` : `${bound.address}:${bound.port}`
}
