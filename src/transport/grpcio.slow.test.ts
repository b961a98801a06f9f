import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { python, requires } from '../../test/requirements.ts'
import { Health, listenForHealth } from './health.ts'

const script = resolve(import.meta.dirname, '../../test/contracts/health-client.py')

requires('python-grpcio').describe("Python's grpcio", () => {
  test('asks for health', async () => {
    const health = new Health()
    health.set('', true)
    health.set('stopping', false)
    const listener = await listenForHealth({ host: '127.0.0.1', port: 0, health })
    onTestFinished(() => listener.close())
    const { stdout } = await promisify(execFile)(python, [script, listener.address])
    expect(JSON.parse(stdout)).toEqual({
      health: 'SERVING',
      stopping: 'NOT_SERVING',
      watched: 'SERVING',
      unknownService: 'NOT_FOUND',
      unknownMethod: 'UNIMPLEMENTED',
    })
  })
})
