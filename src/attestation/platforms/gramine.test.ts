import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { attestationDevice, type DeviceBehaviour } from '../../../test/attestation-device.ts'
import { platformContract } from '../../../test/contracts/platform.ts'
import { quoteFields, reportFields } from '../format.ts'
import { openGraminePlatform } from './gramine.ts'

const directory = '/dev/attestation'
const openWith = (behaviour: Partial<DeviceBehaviour> = {}) =>
  openGraminePlatform({ directory, openFile: attestationDevice({ code: 'cloister', ...behaviour }).openFile })

describe('contract', () => {
  // One device a process: both openings share it, as under Gramine.
  const device = attestationDevice({ code: 'cloister' })
  platformContract(
    () => openGraminePlatform({ directory, openFile: device.openFile }),
    () => openWith({ code: 'other' }),
  )
})

test('the stand-in shows what the lock prevents', async () => {
  const { openFile } = attestationDevice({ code: 'cloister' })
  const unlocked = async (value: number) => {
    const data = await openFile(join(directory, 'user_report_data'))
    await data.write(Buffer.alloc(64, value), 0, 64, null)
    const quote = Buffer.alloc(1000)
    await (await openFile(join(directory, 'quote'))).read(quote, 0, 1000, null)
    return quote[quoteFields.report.offset + reportFields.reportData.offset]
  }
  expect(await Promise.all([unlocked(1), unlocked(2)])).toEqual([2, 2])
})

test('§6.43 concurrent user_report_data writes: each quote is made between its own write and the next', async () => {
  const device = attestationDevice({ code: 'cloister' })
  const [one, two] = await Promise.all([
    openGraminePlatform({ directory, openFile: device.openFile }),
    openGraminePlatform({ directory, openFile: device.openFile }),
  ])
  const data = Array.from({ length: 20 }, (_, index) => Buffer.alloc(64, index))
  const quotes = await Promise.all(data.map((reportData, index) => (index % 2 ? one : two).quote(reportData)))
  const at = quoteFields.report.offset + reportFields.reportData.offset
  expect(quotes.map((quote) => quote[at])).toEqual(data.map((reportData) => reportData[0]))
  expect(new Set(device.writes)).toEqual(new Set(['target_info 512', 'user_report_data 64']))
})

describe('the host', () => {
  const at = (field: keyof typeof reportFields) => quoteFields.report.offset + reportFields[field].offset
  const flip = (offset: number) => (quote: Buffer) => {
    quote[offset]! ^= 1
    return quote
  }
  test.each(['mrEnclave', 'mrSigner', 'productId', 'svn', 'flags', 'reportData'] as const)(
    'cannot pass a quote with another %s',
    async (field) => {
      const platform = await openWith({ host: flip(at(field)) })
      await expect(platform.quote(Buffer.alloc(64, 5))).rejects.toMatchObject({ code: 'platform-quote-mismatch' })
    },
  )

  test('cannot replay an earlier quote', async () => {
    let first: Buffer | undefined
    const platform = await openWith({
      host: (quote) => {
        first ??= quote
        return first
      },
    })
    await platform.quote(Buffer.alloc(64, 1))
    await expect(platform.quote(Buffer.alloc(64, 2))).rejects.toMatchObject({ code: 'platform-quote-mismatch' })
  })

  test.each([0, 1, 431, 432])('a quote of %i bytes is refused', async (size) => {
    const platform = await openWith({ host: (quote) => quote.subarray(0, size) })
    await expect(platform.quote(Buffer.alloc(64))).rejects.toMatchObject({ code: 'platform-quote-failed' })
  })

  test('a quote of 8192 bytes passes, one byte more does not', async () => {
    const sized = (size: number) =>
      openWith({ host: (quote) => Buffer.concat([quote, Buffer.alloc(size - quote.length)]) })
    expect(await (await sized(8192)).quote(Buffer.alloc(64))).toHaveLength(8192)
    await expect((await sized(8193)).quote(Buffer.alloc(64))).rejects.toMatchObject({ code: 'platform-quote-failed' })
  })

  test('a missing quoting service is named, and the device is free afterwards', async () => {
    const platform = await openWith({ files: { quote: 'refused' } })
    await expect(platform.quote(Buffer.alloc(64))).rejects.toMatchObject({
      code: 'platform-quote-failed',
      message: expect.stringContaining('EACCES'),
      hint: expect.stringContaining('aesmd'),
    })
    const healthy = await openWith()
    await expect(healthy.quote(Buffer.alloc(64))).resolves.toBeDefined()
  })
})

describe('what is missing is said at once', () => {
  let scratch = ''
  beforeAll(() => {
    scratch = mkdtempSync(join(tmpdir(), 'cloister-device-'))
    mkdirSync(join(scratch, 'direct/keys'), { recursive: true })
    mkdirSync(join(scratch, 'none'))
    writeFileSync(join(scratch, 'none/attestation_type'), 'none')
    mkdirSync(join(scratch, 'epid'))
    writeFileSync(join(scratch, 'epid/attestation_type'), 'epid_linkable')
    mkdirSync(join(scratch, 'endless'))
    writeFileSync(join(scratch, 'endless/attestation_type'), 'x'.repeat(1000))
    mkdirSync(join(scratch, 'partial'))
    writeFileSync(join(scratch, 'partial/attestation_type'), 'dcap')
  })
  afterAll(() => rmSync(scratch, { recursive: true }))

  test.each([
    ['nowhere', 'platform-absent'],
    ['direct', 'platform-not-sgx'],
    ['none', 'platform-attestation-disabled'],
    ['epid', 'platform-attestation-unsupported'],
    ['endless', 'platform-device-failed'],
    ['partial', 'platform-device-failed'],
  ])('%s: %s', async (name, code) => {
    await expect(openGraminePlatform({ directory: join(scratch, name) })).rejects.toMatchObject({ code })
  })

  test.each([
    [{ files: { report: Buffer.alloc(431) } }, 'platform-device-failed'],
    [{ files: { report: Buffer.alloc(433) } }, 'platform-device-failed'],
    [{ files: { my_target_info: Buffer.alloc(64) } }, 'platform-device-failed'],
    [{ maxWriteBytes: 63 }, 'platform-device-failed'],
    [{ files: { user_report_data: 'refused' as const } }, 'platform-device-failed'],
  ])('a device that is not what it should be: %o', async (behaviour, code) => {
    await expect(openWith(behaviour)).rejects.toMatchObject({ code })
  })

  test.each([
    { 'keys/_sgx_mrenclave': 'absent' as const },
    { 'keys/_sgx_mrenclave': Buffer.alloc(0) },
    { 'keys/_sgx_mrenclave': Buffer.alloc(15) },
  ])('no sealing key: %o', async (files) => {
    const platform = await openWith({ files })
    await expect(platform.sealingKey('mrenclave')).rejects.toMatchObject({ code: 'platform-sealing-key-unavailable' })
  })
})
