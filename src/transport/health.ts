// SPDX-License-Identifier: Apache-2.0
/**
 * grpc.health.v1: whether this process, or one service of it, takes work. It tells nothing but that one bit, so it is asked
 * without TLS, which is all that Kubernetes' probes can do.
 */

import { createServer, type ServerHttp2Stream, type SessionOptions } from 'node:http2'
import { create } from '@bufbuild/protobuf'
import { bind } from './bind.ts'
import { codec, methodPath } from './codec.ts'
import { encodeFrame, FrameDecoder } from './frame.ts'
import {
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  Health as HealthService,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from './gen/grpc/health/v1/health_pb.ts'
import { isGone, refuseCall, refuseUnknownMethod, responseHeaders, verifyRequest } from './grpc-request.ts'
import { trailersOf } from './grpc-status.ts'
import { reasonFor, TransportError } from './transport-error.ts'

const maxMessageBytes = 1024
/** Bounds against whoever reaches the port. */
const sessionOptions: SessionOptions = {
  maxSessionMemory: 1, // MB
  maxHeaderListPairs: 64,
  maxOutstandingPings: 4,
  maxSettings: 16,
  settings: { enablePush: false, maxHeaderListSize: 16_384, maxConcurrentStreams: 8 },
}
const messages = codec(HealthCheckResponseSchema, HealthCheckRequestSchema)

/** Of gRPC's frames those that are not compressed. */
const uncompressed = 0

export function healthFrame(pieces: readonly Uint8Array[]): Buffer {
  return encodeFrame(uncompressed, pieces, maxMessageBytes)
}

export function healthDecoder(): FrameDecoder {
  return new FrameDecoder((type) => (type === uncompressed ? maxMessageBytes : undefined))
}

/** Services by full name; the empty name is the process as a whole. */
export class Health {
  readonly #serving = new Map<string, boolean>([['', false]])
  readonly #watchers = new Set<() => void>()

  set(service: string, serving: boolean): void {
    this.#serving.set(service, serving)
    for (const tell of this.#watchers) tell()
  }

  /** Undefined for a service that is not known here. */
  serving(service: string): boolean | undefined {
    return this.#serving.get(service)
  }

  /** Calls `tell` at each change until the returned function is called. */
  watch(tell: () => void): () => void {
    this.#watchers.add(tell)
    return () => this.#watchers.delete(tell)
  }
}

/** Whether `path` is a health method; if so the stream is answered. */
function answerHealth(stream: ServerHttp2Stream, path: string, health: Health): boolean {
  const watching = path === methodPath(HealthService.method.watch)
  if (!watching && path !== methodPath(HealthService.method.check)) return false
  const decoder = healthDecoder()
  const requests: Uint8Array[] = []
  stream.on('data', (chunk: Buffer) => {
    try {
      for (const { payload } of decoder.push(chunk)) requests.push(payload)
    } catch (error) {
      stream.removeAllListeners('data').resume()
      refuseCall(stream, reasonFor(error))
    }
  })
  stream.once('end', () => {
    if (isGone(stream) || stream.headersSent) return
    try {
      decoder.end()
      if (requests.length !== 1) {
        throw new TransportError('message-malformed', `expected one request, got ${requests.length}`)
      }
      const { service } = messages.decode(requests[0]!)
      if (watching) answerWatch(stream, health, service)
      else answerCheck(stream, health, service)
    } catch (error) {
      refuseCall(stream, reasonFor(error))
    }
  })
  return true
}

function answerCheck(stream: ServerHttp2Stream, health: Health, service: string): void {
  const serving = health.serving(service)
  if (serving === undefined) {
    refuseCall(stream, {
      code: 'service-unknown',
      message: 'expected the name of a service that runs here, got another',
    })
    return
  }
  stream.respond(responseHeaders, { waitForTrailers: true })
  stream.once('wantTrailers', () => isGone(stream) || stream.sendTrailers(trailersOf(undefined)))
  writeStatus(stream, serving)
  stream.end()
}

function answerWatch(stream: ServerHttp2Stream, health: Health, service: string): void {
  stream.respond(responseHeaders)
  let told: boolean | undefined | 'nothing' = 'nothing'
  const tell = () => {
    const serving = health.serving(service)
    if (serving === told) return
    told = serving
    writeStatus(stream, serving)
  }
  stream.once('close', health.watch(tell))
  tell()
}

function writeStatus(stream: ServerHttp2Stream, serving: boolean | undefined): void {
  const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = ServingStatus
  const status = serving === undefined ? SERVICE_UNKNOWN : serving ? SERVING : NOT_SERVING
  const pieces = messages.encode(create(HealthCheckResponseSchema, { status }))
  stream.write(healthFrame(pieces))
}

export interface HealthListener {
  /** host:port as bound. */
  readonly address: string
  close(): Promise<void>
}

/** Health and nothing else, without TLS, for probes of the host; whoever reaches the port learns one bit. */
export async function listenForHealth(options: {
  readonly host: string
  readonly port: number
  readonly health: Health
}): Promise<HealthListener> {
  const { host, port, health } = options
  const server = createServer(sessionOptions)
  const sessions = new Set<{ destroy(): void }>()
  server.maxConnections = 64
  server.on('session', (session) => {
    sessions.add(session)
    session.on('error', () => {})
    session.setTimeout(60_000, () => session.destroy())
    session.once('close', () => sessions.delete(session))
  })
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    const path = verifyRequest(stream, headers)
    if (path !== undefined && !answerHealth(stream, path, health)) refuseUnknownMethod(stream)
  })
  const address = await bind(server, host, port)
  return {
    address,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const session of sessions) session.destroy()
      }),
  }
}
