/** The Rust verifier of PyPI (dcap-qvl) as judge and as client: quotes, collateral and PCCS of the simulated platform pass for real ones. */
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, expect, test } from 'vitest'
import { python, requires } from '../../../test/requirements.ts'
import { scratchDirectory, testAuthority, testCollateral, testEnclave, testNow } from '../../../test/simulated.ts'
import { startPccsServer } from '../pccs-server.ts'
import type { SimulatedOptions } from './simulated.ts'
import type { SimulatedAuthority } from './simulated-authority.ts'

/** argv: quote, collateral or URL, root in DER, time. Prints status and advisories, or the refusal. */
const script = `
import asyncio, json, os, sys, dcap_qvl
quote, source, root = open(sys.argv[1], 'rb').read(), sys.argv[2], open(sys.argv[3], 'rb').read()
async def collateral():
    if source.startswith('http'):
        return await dcap_qvl.get_collateral(source, quote)
    return dcap_qvl.QuoteCollateralV3.from_json(open(source).read())
try:
    verified = dcap_qvl.verify_with_root_ca(quote, asyncio.run(collateral()), root, int(sys.argv[4]))
    print(json.dumps({'status': verified.status, 'advisories': sorted(verified.advisory_ids)}))
except Exception as refusal:
    print(json.dumps({'refused': str(refusal)}))
sys.stdout.flush()
# The library's HTTP threads sometimes crash the interpreter as it ends.
os._exit(0)
`

requires('python-dcap-qvl').describe('PyPI’s dcap-qvl', () => {
  let authority: SimulatedAuthority
  const directory = scratchDirectory()
  const file = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(directory, name), content)
    return join(directory, name)
  }
  beforeAll(async () => {
    authority = await testAuthority()
  })

  async function judge(options: Partial<SimulatedOptions>, source?: string) {
    const quote = await (await testEnclave(authority, options)).quote(Buffer.alloc(64, 9))
    const collateral = await testCollateral(authority, testNow, options.machine?.ca)
    const { stdout } = await promisify(execFile)(python, [
      file('script.py', script),
      file('quote', quote),
      source ?? file('collateral', JSON.stringify(collateral)),
      file('root', authority.certificates.root.der),
      `${testNow.getTime() / 1000}`,
    ])
    return JSON.parse(stdout)
  }

  test.each([
    [[], { status: 'UpToDate', advisories: [] }],
    [['sw-hardening-needed'], { status: 'SWHardeningNeeded', advisories: ['INTEL-SA-00615'] }],
    [['configuration-needed'], { status: 'ConfigurationNeeded', advisories: ['INTEL-SA-00657', 'INTEL-SA-00767'] }],
    [['out-of-date'], { status: 'OutOfDate', advisories: ['INTEL-SA-00828', 'INTEL-SA-00837'] }],
    [['qe-out-of-date'], { status: 'OutOfDate', advisories: ['INTEL-SA-00615'] }],
    [['configuration-needed', 'qe-out-of-date'], { status: 'OutOfDateConfigurationNeeded' }],
    [['tcb-recovery'], { status: 'OutOfDate', advisories: ['INTEL-SA-01153'] }],
    [['tcb-revoked'], { refused: expect.any(String) }],
    [['revoked-pck'], { refused: expect.stringMatching(/revoked/i) }],
    [['revoked-ca'], { refused: expect.stringMatching(/revoked/i) }],
    [['expired-collateral'], { refused: expect.any(String) }],
    [['debug'], { refused: expect.stringMatching(/debug/i) }],
  ])('%o', async (variants, expected) => {
    await authority.setVariants(variants)
    for (const ca of ['platform', 'processor'] as const) {
      expect(await judge({ machine: { name: ca, ca } })).toMatchObject(expected)
    }
  })

  test.each(['pckChain', 'ppidRsa3072'] as const)(
    'as client of the PCCS, for a quote with %s',
    async (certificationData) => {
      await authority.setVariants([])
      const server = await startPccsServer({ authority, host: '127.0.0.1', port: 0, now: () => testNow })
      try {
        for (const ca of ['platform', 'processor'] as const) {
          const judged = await judge({ machine: { name: ca, ca }, certificationData }, server.url)
          expect(judged).toEqual({ status: 'UpToDate', advisories: [] })
        }
      } finally {
        await server.close()
      }
    },
  )
})
