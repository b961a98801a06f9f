import { type ClientHttp2Session, connect } from 'node:http2'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { describe, expect, onTestFinished, test } from 'vitest'
import { encodeFrame } from './frame.ts'
import {
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as Status,
} from './gen/grpc/health/v1/health_pb.ts'
import { Health, healthDecoder, listenForHealth } from './health.ts'

function request(service: string): Buffer {
  return encodeFrame(0, [toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service }))], 10_000)
}

const checkHeaders = {
  ':method': 'POST',
  ':path': '/grpc.health.v1.Health/Check',
  'content-type': 'application/grpc',
  te: 'trailers',
}

function call(session: ClientHttp2Session, method: 'Check' | 'Watch', body: Buffer) {
  const stream = session.request({ ...checkHeaders, ':path': `/grpc.health.v1.Health/${method}` })
  const decoder = healthDecoder()
  const answers: number[] = []
  let status: unknown
  let told = () => {}
  stream.on('response', (headers) => {
    status = headers['grpc-status']
  })
  stream.on('trailers', (headers) => {
    status = headers['grpc-status']
  })
  stream.on('data', (chunk) => {
    for (const { payload } of decoder.push(chunk)) answers.push(fromBinary(HealthCheckResponseSchema, payload).status)
    told()
  })
  stream.on('error', () => {})
  stream.end(body)
  return {
    stream,
    answers,
    until: async (count: number) => {
      while (answers.length < count) await new Promise<void>((resolve) => (told = resolve))
    },
    end: () => new Promise((resolve) => stream.once('close', () => resolve(status))),
  }
}

async function check(session: ClientHttp2Session, body: Buffer) {
  const { answers, end } = call(session, 'Check', body)
  return { status: await end(), answers }
}

async function plainSession(health: Health): Promise<ClientHttp2Session> {
  const listener = await listenForHealth({ host: '127.0.0.1', port: 0, health })
  const session = connect(`http://${listener.address}`)
  session.on('error', () => {})
  onTestFinished(() => {
    session.destroy()
    return listener.close()
  })
  return session
}

describe('health', () => {
  test('Check tells the status of the process and of a service, now', async () => {
    const health = new Health()
    const session = await plainSession(health)
    expect(await check(session, request(''))).toEqual({ status: '0', answers: [Status.NOT_SERVING] })
    health.set('', true)
    health.set('cloister.v1.Federation', false)
    expect(await check(session, request(''))).toEqual({ status: '0', answers: [Status.SERVING] })
    expect(await check(session, request('cloister.v1.Federation'))).toEqual({
      status: '0',
      answers: [Status.NOT_SERVING],
    })
    expect(await check(session, request('unknown'))).toEqual({ status: '5', answers: [] })
  })

  test('Watch tells each change once, and a service that comes later', async () => {
    const health = new Health()
    const session = await plainSession(health)
    const watch = call(session, 'Watch', request('late'))
    await watch.until(1)
    health.set('late', true)
    health.set('late', true)
    await watch.until(2)
    health.set('late', false)
    await watch.until(3)
    expect(watch.answers).toEqual([Status.SERVICE_UNKNOWN, Status.SERVING, Status.NOT_SERVING])
    watch.stream.close()
  })

  test.each([
    ['no message', Buffer.alloc(0), '3'],
    ['two messages', Buffer.concat([request(''), request('')]), '3'],
    ['half a message', request('name').subarray(0, 7), '3'],
    ['garbage', Buffer.from('0000000002ffff', 'hex'), '3'],
    ['a compressed message', Buffer.from('0100000000', 'hex'), '3'],
    ['a message above the bound', request('x'.repeat(2000)), '8'],
  ])('%s is refused, and the next is answered', async (_name, body, status) => {
    const session = await plainSession(new Health())
    expect(await check(session, body)).toEqual({ status, answers: [] })
    expect(await check(session, request(''))).toMatchObject({ status: '0' })
  })

  test.each([
    ['a path of nothing', { ':path': '/' }, { 'grpc-status': '12' }],
    ['GET', { ':method': 'GET' }, { ':status': 415 }],
    ['another content', { 'content-type': 'application/json' }, { ':status': 415 }],
    ['gRPC-Web', { 'content-type': 'application/grpc-web+proto' }, { ':status': 415 }],
  ])('%s is refused, and the next is answered', async (_name, headers, answer) => {
    const session = await plainSession(new Health())
    const stream = session.request({ ...checkHeaders, ...headers }).on('error', () => {})
    expect(await new Promise((resolve) => stream.on('response', resolve))).toMatchObject(answer)
    expect(await check(session, request(''))).toMatchObject({ status: '0' })
  })

  test.each([
    ['/grpc.health.v1.Health/Check', 'POST'],
    ['/grpc.health.v1.Health/Watch', 'POST'],
    ['/grpc.health.v1.Health/Check', 'GET'],
    ['/nothing', 'POST'],
  ])('%s by %s, taken back in the same packet', async (path, method) => {
    const listener = await listenForHealth({ host: '127.0.0.1', port: 0, health: new Health() })
    onTestFinished(() => listener.close())
    for (let round = 0; round < 20; round++) {
      const session = connect(`http://${listener.address}`).on('error', () => {})
      for (let index = 0; index < 4; index++) {
        const stream = session.request({ ...checkHeaders, ':path': path, ':method': method }).on('error', () => {})
        if (index % 2 === 0) stream.end(Buffer.from('0000000000', 'hex'))
        if (index < 2) stream.close(8)
        else stream.destroy()
      }
      await new Promise(setImmediate)
      session.destroy()
    }
    const session = connect(`http://${listener.address}`)
    expect(await check(session, request(''))).toMatchObject({ status: '0' })
    session.destroy()
  })

  test('the port for probes serves nothing else', async () => {
    const session = await plainSession(new Health())
    const stream = session.request({
      ':method': 'POST',
      ':path': '/cloister.test.Echo/Talk',
      'content-type': 'application/grpc',
    })
    expect(await new Promise((resolve) => stream.on('response', resolve))).toMatchObject({ 'grpc-status': '12' })
    stream.destroy()
  })
})
