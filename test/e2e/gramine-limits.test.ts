/** Everything that belongs inside an enclave runs a job to its end with what Gramine lacks taken away. */
import { expect, test } from 'vitest'
import { gramineLimits, requires } from '../requirements.ts'
import { anyEngine, Sandbox, smallJob } from './program.ts'

requires('gramine-limits').describe("inside Gramine's limits", () => {
  test('server and workers train to the end', async () => {
    const sandbox = new Sandbox()
    const data = await sandbox.synthesize('images', 20)
    // The platform's service stands outside, as a PCCS does.
    const platform = sandbox.start(['platform', 'serve', 'platform', '--port', '0'])
    await platform.says(/PCCS/)
    await sandbox.prepare('policy', 'init', 'policy.json', '--root', 'platform/root.pem')
    const job = sandbox.write('job.json', { ...smallJob(), admission: sandbox.json('policy.json') })
    const deployment = sandbox.write('deployment.json', {
      platform: { kind: 'simulated', directory: 'platform' },
      engine: { choice: anyEngine, threads: 1 },
    })
    const inside = { nodeFlags: ['--require', gramineLimits] }
    const common = ['--job', job, '--deployment', deployment]
    const server = sandbox.start(['server', ...common, '--out', 'server'], inside)
    const [, address] = (await server.says(/listening on (\S+)/)) as unknown as [string, string]
    const workers = [0, 1].map((index) =>
      sandbox.start(
        [
          ...['worker', ...common, '--index', String(index), '--connect', address],
          ...['--data', data, '--out', `worker${index}`],
        ],
        inside,
      ),
    )
    for (const process of [server, ...workers]) expect(await process.exited).toMatchObject({ status: 0, err: '' })
    expect(sandbox.json('server/result.json')).toMatchObject({ steps: 6, interrupted: false })
  })

  test('what they run in lacks what it should lack', async () => {
    const sandbox = new Sandbox()
    const data = await sandbox.synthesize('images', 20)
    const job = sandbox.write('job.json', smallJob())
    // `simulate` starts processes, which only works outside: the limits are in force.
    const args = ['simulate', '--job', job, '--data', data, '--out', 'run']
    const { status, err } = await sandbox.run(args, { nodeFlags: ['--require', gramineLimits] })
    expect(status).toBe(1)
    expect(err).toContain('not available inside Gramine')
  })
})
