import { onTestFinished } from 'vitest'
import { talk } from '../../test/contracts/echo.ts'
import { describeTransport } from '../../test/contracts/transport.ts'
import type { EndOptions } from '../../test/contracts/transport-harness.ts'
import { createPinnedIdentity, type PinnedPeer, pinnedCredentials } from '../../test/support/pinned.ts'
import { connect } from './client.ts'
import type { Credentials } from './connection.ts'
import { listen } from './server.ts'

const [server, worker] = ['server', 'worker'].map((name) => createPinnedIdentity(name, new Date()))

function end(own: typeof server, peer: PinnedPeer, { limits, judge }: EndOptions) {
  const credentials = pinnedCredentials(own!, [peer])
  const judging: Credentials<PinnedPeer> = {
    identity: credentials.identity,
    authenticate: async (handshake, signal) => {
      await judge?.(signal)
      return credentials.authenticate(handshake, signal)
    },
  }
  return { host: '127.0.0.1', method: talk, limits: limits ?? {}, credentials: judging }
}

describeTransport('over TLS', async (options = {}) => {
  const refused: unknown[] = []
  const listener = await listen({
    ...end(server, { name: 'worker', fingerprint: worker!.fingerprint }, options),
    port: 0,
    onRefused: (_address, error) => refused.push(error),
  })
  onTestFinished(() => listener.close())
  const port = Number(listener.address.split(':')[1])
  return {
    listener,
    refused,
    connect: (client = {}) =>
      connect({ ...end(worker, { name: 'server', fingerprint: server!.fingerprint }, client), port }),
  }
})
