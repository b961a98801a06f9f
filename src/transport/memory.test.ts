import { onTestFinished } from 'vitest'
import { talk } from '../../test/contracts/echo.ts'
import { describeTransport } from '../../test/contracts/transport.ts'
import type { EndOptions, NamedPeer } from '../../test/contracts/transport-harness.ts'
import { listenInMemory } from './memory.ts'

const end = (name: string, { limits, judge }: EndOptions) => ({
  identity: { name },
  limits: limits ?? {},
  authenticate: async (claimed: NamedPeer, signal: AbortSignal) => {
    await judge?.(signal)
    return claimed
  },
})

describeTransport('memory', async (options = {}) => {
  const refused: unknown[] = []
  const listener = listenInMemory({
    ...end('server', options),
    method: talk,
    onRefused: (_address, error) => refused.push(error),
  })
  onTestFinished(() => listener.close())
  return { listener, refused, connect: (client = {}) => listener.connect(end('worker', client)) }
})
