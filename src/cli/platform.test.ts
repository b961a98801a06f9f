import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { testContext } from '../../test/cli-context.ts'
import { scratchDirectory, testEnclave, testNow } from '../../test/simulated.ts'
import { intelRootFingerprint } from '../attestation/format.ts'
import { openSimulatedAuthority } from '../attestation/platforms/simulated-authority.ts'
import { createAttestedIdentity } from '../ratls/certificate.ts'
import { fetchCollateral, showCollateral } from './collateral.ts'
import { doctor } from './doctor.ts'
import { measure } from './measure.ts'
import { serve, setVariants } from './platform.ts'

/** `cloister platform serve` until the test ends it. */
async function served(variant: string[] = []) {
  const cwd = scratchDirectory()
  const { context, printed, abort } = testContext({
    cwd,
    now: () => testNow,
    env: { CLOISTER_CACHE: join(cwd, 'cache') },
  })
  const ended = serve(context, { directory: 'sim', port: 0, variant, json: true })
  await vi.waitFor(() => expect(printed.out).toContain('\n'))
  const said = JSON.parse(printed.out)
  const authority = await openSimulatedAuthority({
    directory: join(cwd, 'sim'),
    now: () => testNow,
    secret: () => expect.unreachable(),
  })
  const quote = await (await testEnclave(authority)).quote(Buffer.alloc(64))
  writeFileSync(join(cwd, 'quote.bin'), quote)
  const end = async () => {
    abort.abort('SIGTERM')
    return ended
  }
  return { cwd, context, printed, said, end }
}

const run = (cwd: string, changes = {}) =>
  testContext({ cwd, now: () => testNow, env: { CLOISTER_CACHE: join(cwd, 'cache') }, ...changes })

describe('platform serve', () => {
  test('says aloud what it is, and where; ends on a signal', async () => {
    const { cwd, printed, said, end } = await served()
    expect(printed.err).toContain('SIMULATED')
    expect(said).toMatchObject({
      pccsUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/sgx\/certification\/v4\/$/),
      rootFile: join(cwd, 'sim/root.pem'),
      variants: [],
    })
    expect(said.rootFingerprint).not.toBe(intelRootFingerprint)
    expect(readFileSync(said.rootFile, 'latin1')).toContain('BEGIN CERTIFICATE')
    expect(JSON.parse(readFileSync(said.qcnlFile, 'latin1'))).toMatchObject({ pccs_url: said.pccsUrl })
    expect(await end()).toBe(0)
  })

  test.each([
    [{ host: '0.0.0.0' }, hostname()],
    [{ host: '0.0.0.0', advertise: 'pccs.example' }, 'pccs.example'],
    [{ advertise: 'fd00::7' }, '[fd00::7]'],
  ])('%o tells others to ask %s', async (options, host) => {
    const cwd = scratchDirectory()
    const { context, printed, abort } = run(cwd)
    const ended = serve(context, { directory: 'sim', port: 0, json: true, ...options })
    await vi.waitFor(() => expect(printed.out).toContain('\n'))
    const { pccsUrl, qcnlFile } = JSON.parse(printed.out)
    abort.abort('SIGTERM')
    await ended
    expect(new URL(pccsUrl).hostname).toBe(host.toLowerCase())
    expect(Number(new URL(pccsUrl).port)).toBeGreaterThan(0)
    expect(JSON.parse(readFileSync(qcnlFile, 'latin1'))).toMatchObject({ pccs_url: pccsUrl })
  })

  test('keeps its root over restarts; variants are those of the last start', async () => {
    const first = await served(['out-of-date'])
    await first.end()
    const { context, printed, abort } = run(first.cwd)
    const ended = serve(context, { directory: 'sim', port: 0 })
    await vi.waitFor(() => expect(printed.out).toContain('healthy'))
    expect(printed.out).toContain(first.said.rootFingerprint)
    abort.abort('SIGINT')
    await ended
  })

  test('a wrong variant or a port in use is an error', async () => {
    const cwd = scratchDirectory()
    const wrong = serve(run(cwd).context, { directory: 'sim', port: 0, variant: ['up'] })
    await expect(wrong).rejects.toMatchObject({
      code: 'platform-variant-unknown',
      hint: expect.stringContaining('debug'),
    })
    const taken = createServer()
    await new Promise<void>((listening) => taken.listen(0, '127.0.0.1', listening))
    const { port } = taken.address() as { port: number }
    await expect(serve(run(cwd).context, { directory: 'sim', port })).rejects.toMatchObject({
      code: 'pccs-address-unusable',
    })
    taken.close()
  })
})

describe('collateral fetch and show', () => {
  test('a bundle from the PCCS that QCNL_CONF_PATH names, then shown offline', async () => {
    const { cwd, said, end } = await served()
    const env = { CLOISTER_CACHE: join(cwd, 'cache'), QCNL_CONF_PATH: said.qcnlFile }
    const fetched = run(cwd, { env })
    const options = { root: 'sim/root.pem', out: 'bundle.json' }
    expect(await fetchCollateral(fetched.context, options, 'quote.bin')).toBe(0)
    expect(fetched.printed.err).toContain(said.rootFingerprint)
    await end()

    const shown = run(cwd)
    expect(await showCollateral(shown.context, { root: 'sim/root.pem' }, 'bundle.json')).toBe(0)
    expect(shown.printed.out).toContain('not Intel')
    expect(shown.printed.out).toContain('evaluation   TCB info 18, QE identity 18')
    expect(shown.printed.out).toContain('signed under this root, and valid now')

    const later = run(cwd, { now: () => new Date(testNow.getTime() + 40 * 86_400_000) })
    expect(await showCollateral(later.context, { root: 'sim/root.pem', json: true }, 'bundle.json')).toBe(1)
    const { trusted, problems } = JSON.parse(later.printed.out)
    expect(trusted.fmspc).toBe('00c101570e00')
    expect(problems.map(({ code }: { code: string }) => code)).toEqual([
      'crl-expired',
      'crl-expired',
      'tcb-info-expired',
      'qe-identity-expired',
    ])

    const intel = run(cwd)
    expect(await showCollateral(intel.context, {}, 'bundle.json')).toBe(1)
    expect(intel.printed.out).toContain('nothing in it is proven')
    expect(intel.printed.out).toContain('chain-untrusted-root')
  })

  test('to standard output with --pccs; refused for a root that the quote does not chain to', async () => {
    const { cwd, said, end } = await served()
    const { context, printed } = run(cwd)
    expect(await fetchCollateral(context, { pccs: said.pccsUrl, root: 'sim/root.pem' }, 'quote.bin')).toBe(0)
    expect(JSON.parse(printed.out)).toHaveProperty('tcb_info_signature')
    const wrong = fetchCollateral(run(cwd).context, { pccs: said.pccsUrl }, 'quote.bin')
    await expect(wrong).rejects.toMatchObject({ code: 'chain-untrusted-root' })
    await end()
  })

  test('of a certificate as of the quote in it', async () => {
    const { cwd, said, end } = await served()
    const authority = await openSimulatedAuthority({
      directory: join(cwd, 'sim'),
      now: () => testNow,
      secret: () => expect.unreachable(),
    })
    const { quote } = await testEnclave(authority)
    const { certificate } = await createAttestedIdentity({ quote, now: testNow.getTime(), lifetimeMs: 3_600_000 })
    writeFileSync(join(cwd, 'peer.pem'), certificate)
    const [ofQuote, ofCertificate] = [run(cwd), run(cwd)]
    const options = { pccs: said.pccsUrl, root: 'sim/root.pem' }
    await fetchCollateral(ofQuote.context, options, 'quote.bin')
    await fetchCollateral(ofCertificate.context, options, 'peer.pem')
    expect(ofCertificate.printed.out).toBe(ofQuote.printed.out)
    await end()
  })
})

describe('doctor', () => {
  /** A machine in a directory. */
  function machine(cpuFlags: string, devices: string[]) {
    const root = scratchDirectory()
    writeFileSync(join(root, 'cpuinfo'), `model name\t: Test CPU\nflags\t\t: fpu ${cpuFlags}\n`)
    mkdirSync(join(root, 'dev'))
    for (const name of devices) writeFileSync(join(root, 'dev', name), '')
    mkdirSync(join(root, 'bin'))
    for (const name of ['gramine-sgx', 'gramine-manifest', 'gramine-sgx-sign']) {
      writeFileSync(join(root, 'bin', name), '', { mode: 0o755 })
    }
    const paths = {
      cpuinfo: join(root, 'cpuinfo'),
      devices: join(root, 'dev'),
      aesmSocket: join(root, 'aesm.socket'),
      qcnl: join(root, 'qcnl.conf'),
    }
    return { root, paths, path: join(root, 'bin') }
  }
  const states = (text: string) =>
    Object.fromEntries(JSON.parse(text).map(({ check, state }: { check: string; state: string }) => [check, state]))

  test('a machine with everything, on a simulated service', async () => {
    const { cwd, said, end } = await served()
    const { paths, path } = machine('sgx sgx_lc', ['sgx_enclave', 'sgx_provision'])
    writeFileSync(paths.qcnl, `// comment\n{ "pccs_url": "${said.pccsUrl}" }`)
    const aesm = createServer()
    await new Promise<void>((listening) => aesm.listen(paths.aesmSocket, listening))
    const { context, printed } = run(cwd, { env: { PATH: path, CLOISTER_CACHE: join(cwd, 'cache') } })
    const status = await doctor(context, { quote: 'quote.bin', root: 'sim/root.pem', json: true }, paths)
    aesm.close()
    await end()
    expect(states(printed.out)).toEqual({
      processor: 'ok',
      'device enclave': 'ok',
      'device provision': 'ok',
      'quoting service': 'ok',
      'inside an enclave': 'ok',
      Gramine: 'ok',
      'collateral service': 'ok',
      'collateral signer': 'warning',
      'dates of QE identity': 'ok',
      'dates of root CRL': 'ok',
      'TCB of this platform': 'ok',
    })
    expect(status).toBe(0)
  })

  test('a machine with nothing: each finding has advice', async () => {
    const cwd = scratchDirectory()
    const { paths } = machine('sse2', [])
    writeFileSync(paths.qcnl, '{"pccs_url":"http://127.0.0.1:9/sgx/certification/v4/"}')
    const { context, printed } = run(cwd, { env: { PATH: '/nowhere' } })
    expect(await doctor(context, { json: true }, paths)).toBe(1)
    const findings = JSON.parse(printed.out)
    expect(states(printed.out)).toEqual({
      processor: 'missing',
      'device enclave': 'missing',
      'device provision': 'missing',
      'quoting service': 'missing',
      'inside an enclave': 'ok',
      Gramine: 'missing',
      'collateral service': 'missing',
      'TCB of this platform': 'unknown',
    })
    for (const { state, advice } of findings) if (state !== 'ok') expect(advice).toMatch(/\w{3}/)
    const text = run(cwd, { env: { PATH: '/nowhere' } })
    await doctor(text.context, {}, paths)
    expect(text.printed.out).toContain('MISSING  processor')
    expect(text.printed.out).toContain('cloister platform serve')
  })

  test.each([
    ['out-of-date', 'TCB of this platform', 'warning'],
    ['tcb-revoked', 'TCB of this platform', 'missing'],
    ['revoked-pck', 'TCB of this platform', 'missing'],
    ['expired-collateral', 'dates of QE identity', 'missing'],
  ])('%s shows in %s', async (variant, check, state) => {
    const { cwd, said, end } = await served([variant])
    const { paths } = machine('sgx sgx_lc', [])
    const { context, printed } = run(cwd)
    await doctor(context, { pccs: said.pccsUrl, quote: 'quote.bin', root: 'sim/root.pem', json: true }, paths)
    await end()
    expect(states(printed.out)[check]).toBe(state)
  })

  test.each([
    ['sgx', 'isgx', 'processor', 'sgx_lc'],
    ['sgx sgx_lc', 'isgx', 'device enclave', 'before DCAP'],
  ])('flags %s and %s: %s', async (flags, device, check, words) => {
    const { paths } = machine(flags, [device])
    const { context, printed } = run(scratchDirectory())
    await doctor(context, { qcnl: '/nowhere', json: true }, paths)
    const finding = JSON.parse(printed.out).find((one: { check: string }) => one.check === check)
    expect(finding).toMatchObject({ state: 'missing', found: expect.stringContaining(words) })
    expect(states(printed.out)['collateral service']).toBe('missing')
  })

  test.each([
    [undefined, 'warning'],
    ['none', 'missing'],
    ['dcap', 'ok'],
  ])('inside Gramine with attestation type %s: %s', async (type, state) => {
    const { paths } = machine('sgx', [])
    mkdirSync(join(paths.devices, 'attestation'))
    if (type !== undefined) writeFileSync(join(paths.devices, 'attestation/attestation_type'), type)
    const { context, printed } = run(scratchDirectory())
    await doctor(context, { qcnl: '/nowhere', json: true }, paths)
    expect(states(printed.out)['inside an enclave']).toBe(state)
  })
})

test('platform set changes what a running service says', async () => {
  const { cwd, said, end } = await served()
  const { context, printed } = run(cwd)
  expect(await setVariants(context, { directory: 'sim', variant: ['tcb-recovery'] })).toBe(0)
  expect(printed.out).toContain('tcb-recovery')
  const fetched = run(cwd)
  await fetchCollateral(fetched.context, { pccs: said.pccsUrl, root: 'sim/root.pem' }, 'quote.bin')
  expect(fetched.printed.err).toContain('TCB info 19')
  await end()
})

test('measure prints what sha256sum computes over the files that it lists', async () => {
  const root = scratchDirectory()
  mkdirSync(join(root, 'dist/cli'), { recursive: true })
  writeFileSync(join(root, 'dist/main.js'), 'main')
  writeFileSync(join(root, 'dist/cli/a.js'), 'a')
  writeFileSync(join(root, 'package.json'), '{}')
  const { context, printed } = testContext({ self: ['node', join(root, 'dist/main.js')] })
  expect(await measure(context, { json: true })).toBe(0)
  const { mrEnclave, files } = JSON.parse(printed.out)
  const paths = files.map(({ path }: { path: string }) => path)
  expect(paths).toEqual(['dist/cli/a.js', 'dist/main.js', 'package.json'])
  const sum = execFileSync('sh', ['-c', `sha256sum ${paths.join(' ')} | sha256sum`], { cwd: root, encoding: 'utf8' })
  expect(sum).toBe(`${mrEnclave}  -\n`)
  const text = testContext({ self: ['node', join(root, 'dist/main.js')] })
  await measure(text.context, {})
  expect(text.printed.out).toContain(`MRENCLAVE  ${mrEnclave}\n`)
})
