/** Leader and follower by themselves: a server talks to what says it is another one. */
import { afterAll, describe, expect, test } from 'vitest'
import { connectTo, kinds, memoryWire, testJob, type WorkerConnection } from '../../test/support/federation.ts'
import { startServers } from '../../test/support/server-group.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Follower } from './follower.ts'
import { Leader } from './leader.ts'
import { MessageReader } from './protocol/message-reader.ts'
import { serverMessage, type WorkerMessage, workerMessage } from './protocol/messages.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

const placementDigest = new Uint8Array(32).fill(4)
const options = { servers: 2, jobDigest: testJob.digest, placementDigest }
type Greeting = Extract<Parameters<typeof workerMessage>[0], { case: 'serverHello' }>['value']
const greeting = { protocol: 3, jobDigest: testJob.digest, placementDigest, server: 1, steps: [], durableStep: 0 }

/** A follower's end and the leader's end of one connection. */
async function link(): Promise<{ here: WorkerConnection; there: Parameters<Leader['attend']>[0] }> {
  const wire = memoryWire('leader')
  const here = await connectTo(wire, { name: 'follower', role: 'follower' })
  const arrived = await wire.connections[Symbol.asyncIterator]().next()
  if (arrived.done) throw new Error('nobody arrived')
  return { here, there: arrived.value }
}

describe('a leader', () => {
  /** A job of two servers whose follower is the test itself. */
  function leading() {
    const group = startServers(engine, { servers: 2, workers: 1, totalUpdates: 1, only: [0] })
    const say = async (changes: Partial<Greeting> = {}, role: 'follower' | 'worker' = 'follower') => {
      const connection = await connectTo(group.wires[0]!, { name: 'another', role })
      const hello = { ...greeting, placementDigest: group.layout.placement.digest, ...changes }
      await connection.send(workerMessage({ case: 'serverHello', value: hello }))
      return { connection, messages: connection.incoming[Symbol.asyncIterator]() }
    }
    return { server: group.servers[0]!, say }
  }

  test.each<[string, Partial<Greeting>, string, ('follower' | 'worker')?]>([
    ['another protocol', { protocol: 1 }, 'protocol-unsupported'],
    ['another job', { jobDigest: new Uint8Array(32).fill(9) }, 'job-mismatch'],
    ['another placement', { placementDigest: new Uint8Array(32).fill(9) }, 'placement-mismatch'],
    ['the leader’s own index', { server: 0 }, 'server-index-unknown'],
    ['an index beyond the job', { server: 2 }, 'server-index-unknown'],
    ['what attested to be a worker', {}, 'message-unexpected', 'worker'],
  ])(
    'refuses %s',
    async (_, changes, code, role) => {
      const { server, say } = leading()
      const { connection, messages } = await say(changes, role)
      const { value } = await messages.next()
      expect(value?.message).toMatchObject({ case: 'refused', value: { code } })
      connection.destroy()
      expect(kinds(server.events, 'peer-refused')).toMatchObject([{ address: 'another', error: { code } }])
      server.stop.abort()
      await server.result.catch(() => undefined)
    },
    5_000,
  )

  test('begins anew when a follower comes back before its old connection was found dead', async () => {
    const { server, say } = leading()
    const first = await say()
    expect((await first.messages.next()).value?.message).toMatchObject({ case: 'serverWelcome', value: { step: 0 } })
    // The first connection hangs, as a network can let it: nobody has closed it.
    const second = await say()
    expect((await second.messages.next().catch(() => undefined))?.value?.message.case ?? 'cut').toMatch(
      /serverWelcome|cut/,
    )
    expect(kinds(server.events, 'warning').map(({ error }) => error.code)).toEqual(['servers-scattered'])
    for (const { connection } of [first, second]) connection.destroy()
    server.stop.abort()
    await server.result.catch(() => undefined)
  })

  test('says the newest step that every server has', async () => {
    const leader = new Leader({ ...options, servers: 3 })
    const links = [await link(), await link()]
    const steps = [
      [2, 4, 6],
      [4, 5],
    ]
    for (const [index, { there }] of links.entries()) {
      const reader = new MessageReader<WorkerMessage>(there.incoming)
      void leader.attend(
        there,
        reader,
        {
          ...greeting,
          $typeName: 'cloister.v1.ServerHello',
          server: index + 1,
          steps: steps[index]!,
        },
        () => {},
      )
    }
    expect(await leader.begin({ steps: [1, 2, 4, 6], durableStep: 2 }, new AbortController().signal)).toBe(4)
    for (const { here } of links) {
      const { value } = await here.incoming[Symbol.asyncIterator]().next()
      expect(value?.message).toMatchObject({ case: 'serverWelcome', value: { step: 4 } })
      here.destroy()
    }
  })
})

test.each<[string, number[], number[], { leader: number; follower: number }]>([
  ['that lost its checkpoints', [], [2], { leader: 0, follower: 2 }],
  ['that came back with old ones', [2], [2, 4], { leader: 2, follower: 4 }],
  ['whose follower lost its checkpoints', [2], [], { leader: 2, follower: 0 }],
])('a leader %s goes on only if the job accepts it', async (_, own, theirs, durable) => {
  const begin = async (acceptRollback: boolean) => {
    const leader = new Leader({ ...options, acceptRollback })
    const { here, there } = await link()
    const hello = { ...greeting, $typeName: 'cloister.v1.ServerHello' as const }
    const left = leader.attend(
      there,
      new MessageReader<WorkerMessage>(there.incoming),
      { ...hello, steps: theirs, durableStep: durable.follower },
      () => {},
    )
    const begun = leader.begin({ steps: own, durableStep: durable.leader }, new AbortController().signal)
    begun.catch(() => undefined)
    const { value } = await here.incoming[Symbol.asyncIterator]().next()
    here.destroy()
    return { begun, said: value?.message, left }
  }
  const refusing = await begin(false)
  await expect(refusing.begun).rejects.toMatchObject({
    code: 'server-rolled-back',
    message: expect.stringMatching(/^expected step [24], .*newest: server 0 (none|2), server 1 (none|2|4)$/),
  })
  expect(refusing.said).toMatchObject({ case: 'refused', value: { code: 'server-rolled-back' } })
  expect(await refusing.left).toBe('refused')
  const accepting = await begin(true)
  const step = own.length > 0 && theirs.length > 0 ? 2 : 0
  expect(await accepting.begun).toBe(step)
  expect(accepting.said).toMatchObject({ case: 'serverWelcome', value: { step } })
})

describe('a leader whose job is over', () => {
  const end = { step: 6, stopped: false }

  async function arrive(leader: Leader, steps: number[]) {
    const { here, there } = await link()
    const hello = { ...greeting, $typeName: 'cloister.v1.ServerHello' as const, steps, durableStep: 4 }
    let admitted = false
    const left = leader.attend(there, new MessageReader<WorkerMessage>(there.incoming), hello, () => {
      admitted = true
    })
    left.catch(() => undefined)
    return { here, left, messages: here.incoming[Symbol.asyncIterator](), wasAdmitted: () => admitted }
  }

  async function ended(): Promise<Leader> {
    const leader = new Leader(options)
    await leader.complete(end)
    expect(leader.unheard).toEqual([1])
    return leader
  }

  const isToldTheEnd = async ({ here, messages, left }: Awaited<ReturnType<typeof arrive>>): Promise<void> => {
    expect((await messages.next()).value?.message).toMatchObject({ case: 'serverWelcome', value: { step: 6 } })
    expect((await messages.next()).value?.message).toMatchObject({ case: 'complete', value: { stopped: false } })
    await here.close()
    expect(await left).toBe('finished')
  }

  test('tells a follower that comes back with the last step', async () => {
    const leader = await ended()
    await isToldTheEnd(await arrive(leader, [4, 6]))
    expect(leader.unheard).toEqual([])
  })

  test('tells one that came back a moment before', async () => {
    const leader = new Leader(options)
    const follower = await arrive(leader, [6])
    const completing = leader.complete(end)
    await isToldTheEnd(follower)
    await completing
    expect(leader.unheard).toEqual([])
  })

  test('refuses one without the last step, and knows that it was not told', async () => {
    const leader = await ended()
    const { left, wasAdmitted } = await arrive(leader, [2, 4])
    await expect(left).rejects.toMatchObject({
      code: 'server-rolled-back',
      message: expect.stringContaining('expected step 6, with which training ended, on the disk of server 1, got 4'),
    })
    expect(wasAdmitted()).toBe(false)
    expect(leader.unheard).toEqual([1])
  })

  test('tells one again that was lost on the way', async () => {
    const leader = await ended()
    const first = await arrive(leader, [6])
    first.here.destroy()
    expect(await first.left).toBe('lost')
    expect(leader.unheard).toEqual([1])
    await isToldTheEnd(await arrive(leader, [6]))
  })
})

describe('a leader waits until every follower holds a push', () => {
  const session = new Uint8Array(16).fill(1)

  test.each<[string, { session?: Uint8Array; pull: number }]>([
    ['not an earlier one of the same session', { pull: 6 }],
    ['not one of the session before, whatever its number', { pull: 7, session: new Uint8Array(16).fill(2) }],
  ])('and %s', async (_, old) => {
    const leader = new Leader({ ...options, servers: 2 })
    const { here, there } = await link()
    const hello = { ...greeting, $typeName: 'cloister.v1.ServerHello' as const }
    void leader.attend(there, new MessageReader<WorkerMessage>(there.incoming), hello, () => {})
    await leader.begin({ steps: [], durableStep: 0 }, new AbortController().signal)
    const place = { worker: 0, session, pull: 7 }
    const report = (push: { worker?: number; session?: Uint8Array; pull?: number }) =>
      here.send(workerMessage({ case: 'held', value: { ...place, ...push } }))
    let held = false
    const everywhere = leader.everywhere(place).then(() => {
      held = true
    })
    await report(old)
    // What came was taken: this one is of somebody else, and is waited for.
    await report({ worker: 1 })
    await leader.everywhere({ ...place, worker: 1 })
    expect(held).toBe(false)
    await report({})
    await everywhere
    here.destroy()
  })
})

describe('a follower', () => {
  test('whose leader goes away before it has answered tries again', async () => {
    const links = [await link(), await link()]
    let attempts = 0
    const follower = new Follower({ ...options, server: 1, connect: async () => links[attempts++]!.here })
    const begun = follower.begin({ steps: [3], durableStep: 2 }, new AbortController().signal)
    for (const { there } of links) {
      const { value } = await there.incoming[Symbol.asyncIterator]().next()
      expect(value?.message).toMatchObject({ case: 'serverHello', value: { server: 1, steps: [3], durableStep: 2 } })
      if (there === links[0]!.there) there.destroy()
      else await there.send(serverMessage({ case: 'serverWelcome', value: { step: 3 } }))
    }
    expect(await begun).toBe(3)
  })

  test('that was refused says why and does not try again', async () => {
    const { here, there } = await link()
    let attempts = 0
    const follower = new Follower({
      ...options,
      server: 1,
      connect: async () => {
        attempts++
        return here
      },
    })
    const begun = follower.begin({ steps: [], durableStep: 0 }, new AbortController().signal)
    const refused = { code: 'placement-mismatch', message: 'another plan', hint: 'look' }
    await there.send(serverMessage({ case: 'refused', value: refused }))
    await expect(begun).rejects.toMatchObject({ code: 'placement-mismatch' })
    expect(attempts).toBe(1)
  })
})
