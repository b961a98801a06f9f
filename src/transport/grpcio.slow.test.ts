import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { serverIdentity, startServer, workerIdentity } from '../../test/contracts/pinned.ts'
import type { BytesConnection } from '../../test/contracts/transport-harness.ts'
import { python, requires } from '../../test/requirements.ts'
import { Health } from './health.ts'

const run = promisify(execFile)
const script = resolve(import.meta.dirname, '../../test/contracts/echo-client.py')

async function serve(connection: BytesConnection): Promise<void> {
  for await (const message of connection.incoming) {
    if (String(message.value) === 'refuse me') {
      await connection.close({ code: 'update-refused', message: 'expected ≤ 5 %, got 6 %' })
      return
    }
    await connection.send(message)
  }
  await connection.close()
}

requires('python-grpcio').describe("Python's grpcio as the client", () => {
  test('health, a bidirectional stream, refusals with status and reason', async () => {
    const health = new Health()
    health.set('', true)
    const { listener, refused } = await startServer({ health })
    const ends: Promise<unknown>[] = []
    void (async () => {
      for await (const connection of listener.connections) ends.push(serve(connection).catch((error) => error.code))
    })()
    const directory = await mkdtemp(join(tmpdir(), 'cloister-grpcio-'))
    onTestFinished(() => rm(directory, { recursive: true }))
    await writeFile(join(directory, 'server.pem'), serverIdentity.certificate)
    await writeFile(join(directory, 'worker.pem'), workerIdentity.certificate)
    await writeFile(join(directory, 'worker.key'), workerIdentity.privateKey)

    const { stdout } = await run(python, [script, listener.address, directory])
    expect(refused).toEqual([])
    expect(JSON.parse(stdout)).toEqual({
      health: 1,
      unknownService: 'NOT_FOUND',
      echoed: [0, 1, 1000, 4_000_000, 7],
      intact: true,
      refusal: ['FAILED_PRECONDITION', 'expected ≤ 5 %, got 6 %', 'update-refused'],
      unknownMethod: 'UNIMPLEMENTED',
    })
    expect(await Promise.all(ends)).toEqual([undefined, undefined])
  })
})
