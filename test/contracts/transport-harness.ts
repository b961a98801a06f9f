/** What a transport brings to the contract suite (transport.ts), and how its tests read from it. */
import { onTestFinished } from 'vitest'
import type { Connection, Listener } from '../../src/transport/connection.ts'
import type { TransportLimits } from '../../src/transport/limits.ts'
import { TransportError } from '../../src/transport/transport-error.ts'
import type { Bytes } from './echo.ts'

export interface NamedPeer {
  readonly name: string
}

export type BytesConnection = Connection<NamedPeer, Bytes, Bytes>

export interface EndOptions {
  readonly limits?: Partial<TransportLimits>
  /** Runs while the other end is being authenticated; throws to refuse. */
  readonly judge?: (signal: AbortSignal) => Promise<void>
}

/** A listener whose clients see it as `server`; it sees them as `worker`. */
export interface TransportHarness {
  readonly listener: Listener<NamedPeer, Bytes, Bytes>
  /** What onRefused was told. */
  readonly refused: unknown[]
  connect(options?: EndOptions): Promise<BytesConnection>
}

export type StartTransport = (options?: EndOptions) => Promise<TransportHarness>

export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error) => (error instanceof TransportError ? error.code : String(error)),
  )
}

export async function next(connection: BytesConnection): Promise<Uint8Array | 'end'> {
  const result = await connection.incoming[Symbol.asyncIterator]().next()
  return result.done ? 'end' : result.value.value
}

/** Reads to the end; keeps first bytes and lengths only. */
export async function drain(connection: BytesConnection): Promise<string[]> {
  const seen: string[] = []
  for await (const { value } of connection.incoming) seen.push(`${value[0] ?? '-'}×${value.length}`)
  return seen
}

export function turns(count: number): Promise<void> {
  return new Promise((resolve) => {
    const turn = (left: number) => (left === 0 ? resolve() : setImmediate(turn, left - 1))
    turn(count)
  })
}

/** Two ends of one connection, broken when the test is over. */
export function pairsOf(start: StartTransport) {
  return async (server: EndOptions = {}, client: EndOptions = {}) => {
    const harness = await start(server)
    const [theirs, accepted] = await Promise.all([
      harness.connect(client),
      harness.listener.connections[Symbol.asyncIterator]().next(),
    ])
    const ours: BytesConnection = accepted.value
    onTestFinished(() => {
      ours.destroy()
      theirs.destroy()
    })
    return { ...harness, server: ours, client: theirs }
  }
}
