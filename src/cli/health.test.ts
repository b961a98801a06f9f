// SPDX-License-Identifier: Apache-2.0

import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { Deferred } from '../federation/deferred.ts'
import { Health, listenForHealth } from '../transport/health.ts'
import { health } from './health.ts'

const never = new AbortController().signal
const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

async function ask(address: string): Promise<{ status: number; said: string }> {
  let said = ''
  const stdout = { columns: 80, write: (text: string) => (said += text) }
  return { status: await health({ stdout, signal: never }, {}, address), said }
}

async function listening(state: Health): Promise<string> {
  const listener = await listenForHealth({ host: '127.0.0.1', port: 0, health: state })
  closers.push(() => listener.close())
  return listener.address
}

describe('cloister health', () => {
  test('tells what the server tells', async () => {
    const state = new Health()
    const address = await listening(state)
    await expect(ask(address)).rejects.toMatchObject({ code: 'health-not-serving' })
    state.set('', true)
    expect(await ask(address)).toEqual({ status: 0, said: 'SERVING\n' })
    state.set('', false)
    await expect(ask(address)).rejects.toMatchObject({ code: 'health-not-serving' })
  })

  test('answers in the place of a process that is gone, until it is told to end', async () => {
    const end = new AbortController()
    const said = new Deferred<string>()
    const stdout = { columns: 80, write: (text: string) => said.resolve(text) }
    const status = health({ stdout, signal: end.signal }, { answer: true }, '127.0.0.1:0')
    const address = (await said.promise).replace('answering on ', '').trim()
    expect(await ask(address)).toEqual({ status: 0, said: 'SERVING\n' })
    end.abort()
    expect(await status).toBe(0)
    await expect(ask(address)).rejects.toMatchObject({ code: 'health-unanswered' })
  })

  test('says when nobody, or somebody else, answers', async () => {
    const other = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n', () => socket.destroy()))
    await new Promise<void>((done) => other.listen(0, '127.0.0.1', done))
    closers.push(() => new Promise((done) => other.close(() => done())))
    const { port } = other.address() as AddressInfo
    await expect(ask(`127.0.0.1:${port}`)).rejects.toMatchObject({ code: 'health-unanswered' })
    const closed = await listening(new Health())
    await closers.pop()?.()
    await expect(ask(closed)).rejects.toMatchObject({ code: 'health-unanswered' })
  })
})
