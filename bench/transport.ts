// SPDX-License-Identifier: Apache-2.0
/**
 * Both ends in one process over loopback: `tsx bench/transport.ts [--json]`. Bulk one way and a 20 KB echo, our
 * transport beside raw node:tls in the same run; CPU counts both ends.
 */
import { connect as connectTls, createServer, type TLSSocket } from 'node:tls'
import { connect } from '../src/transport/client.ts'
import type { Connection } from '../src/transport/connection.ts'
import { listen } from '../src/transport/server.ts'
import { type Bytes, message, talk } from '../test/contracts/echo.ts'
import { createPinnedIdentity, pinnedCredentials } from '../test/support/pinned.ts'

const bulkBytes = 1_000_000_000
const chunkBytes = 2_000_000
const echoes = 3000
const echoBytes = 20_000

interface Ends {
  /** Sends `bulkBytes` in chunks; resolves when the other end has them all. */
  bulk(): Promise<void>
  /** There and back, once. */
  echo(): Promise<void>
  close(): Promise<void>
}

interface Figures {
  readonly bulkMegabytesPerSecond: number
  readonly bulkCpuSecondsPerGigabyte: number
  readonly echoCpuMs: number
  readonly echoWallMs: number
}

const [server, worker] = ['server', 'worker'].map((name) => createPinnedIdentity(name, new Date())) as [
  ReturnType<typeof createPinnedIdentity>,
  ReturnType<typeof createPinnedIdentity>,
]

async function openFramed(): Promise<Ends> {
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    method: talk,
    credentials: pinnedCredentials(server, [{ name: 'worker', fingerprint: worker.fingerprint }]),
  })
  const accepting = listener.connections[Symbol.asyncIterator]().next()
  const near = await connect({
    host: '127.0.0.1',
    port: Number(listener.address.split(':')[1]),
    method: talk,
    credentials: pinnedCredentials(worker, [{ name: 'server', fingerprint: server.fingerprint }]),
  })
  const far: Connection<unknown, Bytes, Bytes> = (await accepting).value
  const [atNear, atFar] = [near.incoming[Symbol.asyncIterator](), far.incoming[Symbol.asyncIterator]()]
  const [chunk, small] = [message(Buffer.alloc(chunkBytes, 7)), message(Buffer.alloc(echoBytes, 7))]
  return {
    bulk: async () => {
      const receiving = (async () => {
        for (let received = 0; received < bulkBytes; received += chunkBytes) await atFar.next()
      })()
      for (let sent = 0; sent < bulkBytes; sent += chunkBytes) await near.send(chunk)
      await receiving
    },
    echo: async () => {
      await near.send(small)
      await far.send((await atFar.next()).value)
      await atNear.next()
    },
    close: async () => {
      near.destroy()
      await listener.close()
    },
  }
}

async function openTls(): Promise<Ends> {
  const { certificate: cert, privateKey: key } = server
  const listener = createServer({ cert, key, requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.3' })
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const accepting = new Promise<TLSSocket>((resolve) => listener.once('secureConnection', resolve))
  const { port } = listener.address() as { port: number }
  const near = connectTls({
    host: '127.0.0.1',
    port,
    cert: worker.certificate,
    key: worker.privateKey,
    rejectUnauthorized: false,
  })
  const far = await accepting
  for (const socket of [near, far]) socket.setNoDelay(true)
  const [chunk, small] = [Buffer.alloc(chunkBytes, 7), Buffer.alloc(echoBytes, 7)]
  const receive = (socket: TLSSocket, bytes: number) => {
    let left = bytes
    return new Promise<void>((resolve) => {
      const take = (data: Buffer) => {
        left -= data.length
        if (left > 0) return
        socket.off('data', take)
        resolve()
      }
      socket.on('data', take)
    })
  }
  return {
    bulk: async () => {
      const receiving = receive(far, bulkBytes)
      for (let sent = 0; sent < bulkBytes; sent += chunkBytes) {
        if (!near.write(chunk)) await new Promise((resolve) => near.once('drain', resolve))
      }
      await receiving
    },
    echo: async () => {
      const [there, back] = [receive(far, echoBytes), receive(near, echoBytes)]
      near.write(small)
      await there
      far.write(small)
      await back
    },
    close: async () => {
      near.destroy()
      await new Promise((resolve) => listener.close(resolve))
    },
  }
}

async function measure(open: () => Promise<Ends>): Promise<Figures> {
  const ends = await open()
  for (let warm = 0; warm < 200; warm++) await ends.echo()
  const bulk = await timed(() => ends.bulk())
  const echo = await timed(async () => {
    for (let echoed = 0; echoed < echoes; echoed++) await ends.echo()
  })
  await ends.close()
  return {
    bulkMegabytesPerSecond: bulkBytes / 1e6 / bulk.wallSeconds,
    bulkCpuSecondsPerGigabyte: bulk.cpuSeconds / (bulkBytes / 1e9),
    echoCpuMs: (echo.cpuSeconds * 1000) / echoes,
    echoWallMs: (echo.wallSeconds * 1000) / echoes,
  }
}

async function timed(run: () => Promise<void>): Promise<{ wallSeconds: number; cpuSeconds: number }> {
  const [start, cpu] = [performance.now(), process.cpuUsage()]
  await run()
  const { user, system } = process.cpuUsage(cpu)
  return { wallSeconds: (performance.now() - start) / 1000, cpuSeconds: (user + system) / 1e6 }
}

const figures = { framed: await measure(openFramed), tls: await measure(openTls) }
if (process.argv.includes('--json')) {
  console.log(JSON.stringify(figures))
} else {
  for (const [name, figure] of Object.entries(figures)) {
    const row = Object.entries(figure).map(([what, value]) => `${what} ${value.toPrecision(3)}`)
    console.log(`${name.padEnd(5)} ${row.join('  ')}`)
  }
}
