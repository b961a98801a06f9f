/** What every platform must do: each implementation's test calls this with a way to open it. */
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { quoteFields, quoteVersion3, reportFields } from '../../src/attestation/format.ts'
import { fieldOf, measurementOf, type Platform, reportDataBytes } from '../../src/attestation/platforms/platform.ts'

/** `open` opens the same enclave each time; `openOther` opens one with other code by the same signer on the same machine. */
export function platformContract(open: () => Promise<Platform>, openOther: () => Promise<Platform>): void {
  const reportOf = (quote: Uint8Array) => fieldOf(quote, quoteFields.report)
  const reportDataOf = (quote: Uint8Array) => fieldOf(reportOf(quote), reportFields.reportData)

  test('a quote carries exactly the report data and the measurement of self', async () => {
    const platform = await open()
    const reportData = randomBytes(reportDataBytes)
    const quote = await platform.quote(reportData)
    expect(fieldOf(quote, quoteFields.version).readUInt16LE()).toBe(quoteVersion3)
    expect(reportDataOf(quote).equals(reportData)).toBe(true)
    expect(measurementOf(reportOf(quote))).toEqual(platform.self)
    expect(platform.self.mrEnclave).toMatch(/^[0-9a-f]{64}$/)
    expect(platform.self.mrSigner).toMatch(/^[0-9a-f]{64}$/)
  })

  test('quotes asked for at the same time do not mix', async () => {
    const platforms = await Promise.all([open(), open()])
    const wanted = Array.from({ length: 12 }, () => randomBytes(reportDataBytes))
    const quotes = await Promise.all(wanted.map((reportData, index) => platforms[index % 2]!.quote(reportData)))
    expect(quotes.map((quote) => reportDataOf(quote).toString('hex'))).toEqual(
      wanted.map((data) => data.toString('hex')),
    )
  })

  test('the buffer that was passed may be reused at once', async () => {
    const platform = await open()
    const reportData = Buffer.alloc(reportDataBytes, 1)
    const quote = platform.quote(reportData)
    reportData.fill(2)
    expect(reportDataOf(await quote).equals(Buffer.alloc(reportDataBytes, 1))).toBe(true)
  })

  test.each([0, 32, 63, 65])('%i bytes of report data are a bug of the caller', async (size) => {
    const platform = await open()
    await expect(platform.quote(new Uint8Array(size))).rejects.toThrow('64 bytes')
  })

  test('sealing keys: 16 bytes, stable, bound to code or to signer', async () => {
    const [platform, again, other] = await Promise.all([open(), open(), openOther()])
    const key = async (of: Platform, kind: 'mrenclave' | 'mrsigner') =>
      Buffer.from(await of.sealingKey(kind)).toString('hex')
    expect(await key(platform, 'mrenclave')).toMatch(/^[0-9a-f]{32}$/)
    expect(await key(platform, 'mrenclave')).toBe(await key(again, 'mrenclave'))
    expect(await key(platform, 'mrsigner')).toBe(await key(again, 'mrsigner'))
    expect(await key(platform, 'mrenclave')).not.toBe(await key(platform, 'mrsigner'))
    expect(other.self.mrEnclave).not.toBe(platform.self.mrEnclave)
    expect(await key(other, 'mrenclave')).not.toBe(await key(platform, 'mrenclave'))
    expect(await key(other, 'mrsigner')).toBe(await key(platform, 'mrsigner'))
  })
}
