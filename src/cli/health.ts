// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister health`: asks grpc.health.v1 as Kubernetes' probes do, for container runtimes that can only run a command; or
 * answers in the place of a process that did its work and is gone, so that its pod stays and is well.
 */
import { connect } from 'node:http2'
import { create } from '@bufbuild/protobuf'
import { CodedError } from '../errors.ts'
import { codec, methodPath } from '../transport/codec.ts'
import {
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  Health as HealthService,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from '../transport/gen/grpc/health/v1/health_pb.ts'
import { Health, healthDecoder, healthFrame, listenForHealth } from '../transport/health.ts'
import { type CliContext, exitStatus } from './context.ts'
import { parseAddress } from './options.ts'

export class HealthError extends CodedError<'health-unanswered' | 'health-not-serving'> {}

const timeoutMs = 4000
const messages = codec(HealthCheckRequestSchema, HealthCheckResponseSchema)

export async function health(
  context: Pick<CliContext, 'stdout' | 'signal'>,
  options: { readonly answer?: boolean },
  address: string,
): Promise<number> {
  if (options.answer === true) return await answer(context, address)
  const status = await askedHealth(address).catch((cause) => {
    const got = cause instanceof Error ? cause.message : String(cause)
    throw new HealthError('health-unanswered', `${address}: expected an answer of grpc.health.v1, got ${got}`, {
      hint: 'Is the server started with --health on this address?',
      cause,
    })
  })
  if (status !== ServingStatus.SERVING) {
    throw new HealthError('health-not-serving', `${address}: expected status SERVING (1), got ${status}`, {
      hint: 'The server starts, stops or has ended its job: its log says which.',
    })
  }
  context.stdout.write('SERVING\n')
  return exitStatus.ok
}

async function answer({ stdout, signal }: Pick<CliContext, 'stdout' | 'signal'>, address: string): Promise<number> {
  const state = new Health()
  state.set('', true)
  const listener = await listenForHealth({ ...parseAddress(address), health: state })
  stdout.write(`answering on ${listener.address}\n`)
  await new Promise<void>((done) => {
    if (signal.aborted) done()
    else signal.addEventListener('abort', () => done(), { once: true })
  })
  await listener.close()
  return exitStatus.ok
}

function askedHealth(address: string): Promise<ServingStatus> {
  return new Promise((resolve, reject) => {
    const session = connect(`http://${address}`)
    const end = (finish: () => void) => {
      clearTimeout(timer)
      session.destroy()
      finish()
    }
    const fail = (error: Error) => end(() => reject(error))
    const timer = setTimeout(() => fail(new Error(`none within ${timeoutMs} ms`)), timeoutMs)
    session.on('error', fail)
    const stream = session.request({
      ':method': 'POST',
      ':path': methodPath(HealthService.method.check),
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    const decoder = healthDecoder()
    let answer: Uint8Array | undefined
    stream.on('error', fail)
    stream.on('data', (chunk: Buffer) => {
      try {
        for (const { payload } of decoder.push(chunk)) answer = payload
      } catch (error) {
        fail(error as Error)
      }
    })
    stream.on('end', () =>
      end(() => {
        try {
          if (answer === undefined) throw new Error('none')
          resolve(messages.decode(answer).status)
        } catch (error) {
          reject(error)
        }
      }),
    )
    stream.end(healthFrame(messages.encode(create(HealthCheckRequestSchema))))
  })
}
