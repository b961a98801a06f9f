import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { QuoteVerifier } from '@phala/dcap-qvl'
import { beforeAll, describe, expect, test } from 'vitest'
import { platformContract } from '../../../test/contracts/platform.ts'
import {
  codeDigest,
  scratchDirectory,
  testAuthority,
  testCollateral,
  testEnclave,
  testNow,
} from '../../../test/simulated.ts'
import { measureApplication } from './application-digest.ts'
import { openSimulatedPlatform } from './simulated.ts'
import { openSimulatedAuthority, type SimulatedAuthority } from './simulated-authority.ts'
import { parseVariants } from './simulated-variants.ts'

const reportData = Buffer.alloc(64, 0x5a)
let authority: SimulatedAuthority
beforeAll(async () => {
  authority = await testAuthority()
})

describe('contract', () => {
  platformContract(
    () => testEnclave(authority),
    () => testEnclave(authority, { mrEnclave: codeDigest('other') }),
  )
})

describe('judged by a foreign verifier with the root replaced', () => {
  const verify = async (of: SimulatedAuthority, ca: 'platform' | 'processor' = 'platform') => {
    const platform = await testEnclave(of, { machine: { name: `machine ${ca}`, ca } })
    const quote = await platform.quote(reportData)
    const verifier = QuoteVerifier.newWithRootCa(of.certificates.root.der)
    return verifier.verify(Buffer.from(quote), await testCollateral(of, testNow, ca), testNow.getTime() / 1000)
  }

  test.each(['platform', 'processor'] as const)('up to date under the %s CA', async (ca) => {
    const verified = await verify(authority, ca)
    expect({ status: verified.status, advisories: verified.advisory_ids }).toEqual({
      status: 'UpToDate',
      advisories: [],
    })
  })

  test.each([
    ['sw-hardening-needed', 'SWHardeningNeeded'],
    ['configuration-needed', 'ConfigurationNeeded'],
    ['configuration-and-sw-hardening-needed', 'ConfigurationAndSWHardeningNeeded'],
    ['out-of-date', 'OutOfDate'],
    ['out-of-date-configuration-needed', 'OutOfDateConfigurationNeeded'],
    ['qe-out-of-date', 'OutOfDate'],
    ['tcb-recovery', 'OutOfDate'],
  ])('%s: %s', async (variant, status) => {
    const other = await testAuthority({ seed: 2 })
    await other.setVariants([variant])
    expect((await verify(other)).status).toBe(status)
  })

  test.each(['debug', 'tcb-revoked', 'expired-collateral'])('%s is refused', async (variant) => {
    const other = await testAuthority({ seed: 3 })
    await other.setVariants([variant])
    await expect(verify(other)).rejects.toThrow()
  })

  test('another authority is another root', async () => {
    const other = await testAuthority({ seed: 4 })
    const quote = await (await testEnclave(authority)).quote(reportData)
    const verifier = QuoteVerifier.newWithRootCa(other.certificates.root.der)
    const collateral = await testCollateral(authority)
    expect(() => verifier.verify(Buffer.from(quote), collateral, testNow.getTime() / 1000)).toThrow()
  })
})

describe('the authority', () => {
  test('many openings of an empty directory make one', async () => {
    const directory = scratchDirectory()
    let opened = 0
    const openings = Array.from({ length: 8 }, () =>
      openSimulatedAuthority({ directory, now: () => testNow, secret: () => Buffer.alloc(32, ++opened) }),
    )
    const roots = (await Promise.all(openings)).map((one) => one.certificates.root.pem)
    expect(new Set(roots).size).toBe(1)
    expect(opened).toBeGreaterThan(1)
    expect(readdirSync(directory)).toEqual(['authority'])
    expect(statSync(join(directory, 'authority/authority.json')).mode & 0o777).toBe(0o600)
  })

  test('the same secret has the same keys, another has others', async () => {
    const key = async (seed: number) => {
      const of = await testAuthority({ seed })
      return new X509Certificate(of.certificates.platformCa.pem).publicKey.export({ type: 'spki', format: 'pem' })
    }
    expect(await key(1)).toBe(await key(1))
    expect(await key(1)).not.toBe(await key(2))
  })

  test.each(['', '{}', '{"format":2}', 'null'])('state %j is refused', async (text) => {
    const directory = scratchDirectory()
    mkdirSync(join(directory, 'authority'))
    writeFileSync(join(directory, 'authority/authority.json'), text)
    await expect(testAuthority({ directory })).rejects.toMatchObject({ code: 'platform-state-invalid' })
  })

  test('openssl accepts the chain of its members and their CRLs', async () => {
    const directory = scratchDirectory()
    const { root, platformCa, processorCa, tcbSigner } = authority.certificates
    const file = (name: string, text: string) => {
      writeFileSync(join(directory, name), text)
      return join(directory, name)
    }
    const { root_ca_crl } = await testCollateral(authority)
    const crl = `-----BEGIN X509 CRL-----\n${Buffer.from(root_ca_crl, 'hex').toString('base64')}\n-----END X509 CRL-----\n`
    const trust = ['-CAfile', file('root', root.pem), '-CRLfile', file('crl', crl), '-crl_check', '-x509_strict']
    const members = [platformCa, processorCa, tcbSigner].map(({ pem }, index) => file(`${index}`, pem))
    const output = execFileSync('openssl', ['verify', ...trust, '-attime', `${testNow.getTime() / 1000}`, ...members])
    expect(output.toString().match(/: OK/g)).toHaveLength(3)
  })
})

describe('variants', () => {
  test('of one machine leave the others alone', () => {
    const variants = parseVariants(['out-of-date@hospital-b', 'debug', 'revoked-ca'])
    expect([...variants.ofMachine('hospital-a')]).toEqual(['debug'])
    expect([...variants.ofMachine('hospital-b')]).toEqual(['out-of-date', 'debug'])
    expect([...variants.authority]).toEqual(['revoked-ca'])
  })

  test.each(['', 'unknown', 'out-of-date@', '@machine', 'revoked-ca@machine', 'out-of-date@a@b'])(
    '%j is refused, and the state stays as it was',
    async (entry) => {
      const before = (await authority.variants()).authority.size
      await expect(authority.setVariants([entry])).rejects.toMatchObject({ code: 'platform-variant-unknown' })
      expect((await authority.variants()).authority.size).toBe(before)
    },
  )

  test('a debug enclave says so of itself and gets other keys', async () => {
    const other = await testAuthority({ seed: 5 })
    const plain = await testEnclave(other)
    await other.setVariants(['debug'])
    const debug = await testEnclave(other)
    expect([plain.self.debug, debug.self.debug]).toEqual([false, true])
    expect(await debug.sealingKey('mrenclave')).not.toEqual(await plain.sealingKey('mrenclave'))
  })
})

test('it is loud, and a production image refuses it', async () => {
  const platform = await testEnclave(authority)
  expect(platform.warning).toMatchObject({ code: 'platform-simulated', message: expect.stringContaining('simulated') })
  const production = openSimulatedPlatform({ authority, mrEnclave: codeDigest('cloister'), image: 'production' })
  await expect(production).rejects.toMatchObject({ code: 'platform-simulated-refused' })
})

describe('the measurement of the application', () => {
  test('is what sha256sum computes', async () => {
    const root = scratchDirectory()
    mkdirSync(join(root, 'dist/sub'), { recursive: true })
    writeFileSync(join(root, 'dist/b.js'), 'b')
    writeFileSync(join(root, 'dist/sub/a.js'), 'a')
    writeFileSync(join(root, 'dist/b.test.js'), 'not measured')
    writeFileSync(join(root, 'package.json'), '{}')
    const { mrEnclave, files } = await measureApplication(root, ['dist', 'package.json', 'package-lock.json'])
    expect(files.map(({ path }) => path)).toEqual(['dist/b.js', 'dist/sub/a.js', 'package.json'])
    const sum = execFileSync('sh', ['-c', `sha256sum dist/b.js dist/sub/a.js package.json | sha256sum`], { cwd: root })
    expect(`${mrEnclave}  -\n`).toBe(sum.toString())
  })

  test('changes with every byte and every name', async () => {
    const measure = async (files: Record<string, string>) => {
      const root = scratchDirectory()
      mkdirSync(join(root, 'dist'))
      for (const [name, text] of Object.entries(files)) writeFileSync(join(root, 'dist', name), text)
      return (await measureApplication(root, ['dist'])).mrEnclave
    }
    const all = await Promise.all([
      measure({ 'a.js': 'x' }),
      measure({ 'a.js': 'y' }),
      measure({ 'b.js': 'x' }),
      measure({ 'a.js': 'x', 'b.js': '' }),
    ])
    expect(new Set(all).size).toBe(4)
    expect(await measure({ 'a.js': 'x', 'a.test.js': 'z' })).toBe(all[0])
  })
})
