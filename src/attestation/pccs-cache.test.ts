import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { testPccs } from '../../test/pccs-service.ts'
import { scratchDirectory, testNow } from '../../test/simulated.ts'

const dayMs = 86_400_000
const pccs = testPccs()

describe('the cache on disk', () => {
  test('survives a restart without the service', async () => {
    const cacheDirectory = scratchDirectory()
    const first = await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)
    await pccs.server.close()
    expect(await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)).toEqual(first)
    const only = pccs.client(pccs.server.url, { cacheDirectory, config: { localCacheOnly: true } })
    expect(await only.collateralFor(pccs.quote)).toEqual(first)
    const empty = pccs.client(pccs.server.url, { cacheDirectory: scratchDirectory(), config: { localCacheOnly: true } })
    await expect(empty.collateralFor(pccs.quote)).rejects.toMatchObject({ code: 'collateral-not-cached' })
  })

  test('two processes may write it at once', async () => {
    const cacheDirectory = scratchDirectory()
    const clients = Array.from({ length: 6 }, () => pccs.client(pccs.server.url, { cacheDirectory }))
    await Promise.all(clients.map((one) => one.collateralFor(pccs.quote)))
    expect(readdirSync(cacheDirectory)).toHaveLength(4)
    for (const name of readdirSync(cacheDirectory)) {
      expect(JSON.parse(readFileSync(join(cacheDirectory, name), 'utf8'))).toMatchObject({ format: 1 })
    }
  })

  test.each([
    ['empty', () => ''],
    ['cut', (text: string) => text.slice(0, text.length / 2)],
    ['of another format', (text: string) => text.replace('"format":1', '"format":2')],
    ['with another field', (text: string) => text.replace('{', '{"more":"","format":1,')],
    [
      'with other content',
      (text: string) => text.replace('"document":{', '"document":{"x":"').replace(/"x":""/, '"x":"y","'),
    ],
    ['huge', () => ' '.repeat(9_000_000)],
    [
      'signed by nobody',
      (text: string) => text.replace(/(signature":"|"crl":"(?:[0-9a-f]{2}){100})[0-9a-f]{4}/, '$10000'),
    ],
  ])('files that are %s are replaced from the service', async (_what, damage) => {
    const cacheDirectory = scratchDirectory()
    const first = await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)
    for (const name of readdirSync(cacheDirectory)) {
      const path = join(cacheDirectory, name)
      writeFileSync(path, damage(readFileSync(path, 'utf8')))
    }
    expect(await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)).toEqual(first)
    await pccs.server.close()
    expect(await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)).toEqual(first)
  })

  test('swapped files count as absent', async () => {
    const cacheDirectory = scratchDirectory()
    await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)
    const [one, two] = readdirSync(cacheDirectory).map((name) => join(cacheDirectory, name))
    const [textOne, textTwo] = [readFileSync(one!), readFileSync(two!)]
    writeFileSync(one!, textTwo)
    writeFileSync(two!, textOne)
    const service = await pccs.intercept()
    await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)
    expect(service.requests).toEqual([])
    await pccs.server.close()
    await expect(pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)).resolves.toBeDefined()
  })

  test('a directory that cannot be written is reported and does without', async () => {
    const file = join(scratchDirectory(), 'file')
    writeFileSync(file, '')
    const asked = pccs.client(pccs.server.url, { cacheDirectory: join(file, 'below') })
    await expect(asked.collateralFor(pccs.quote)).resolves.toBeDefined()
    expect(asked.events.map(({ kind }) => kind)).toEqual(['warning', 'warning', 'warning', 'warning'])
  })

  test('a file dated in the future is asked for again', async () => {
    const cacheDirectory = scratchDirectory()
    mkdirSync(cacheDirectory, { recursive: true })
    await pccs.client(pccs.server.url, { cacheDirectory }).collateralFor(pccs.quote)
    pccs.now = new Date(testNow.getTime() - dayMs)
    const service = await pccs.intercept()
    await pccs.client(service.url, { cacheDirectory }).collateralFor(pccs.quote)
    await pccs.client(service.url, { cacheDirectory }).collateralFor(pccs.quote)
    pccs.now = new Date(testNow.getTime() - 2 * dayMs)
    await pccs.client(service.url, { cacheDirectory }).collateralFor(pccs.quote)
    expect(service.requests).toHaveLength(8)
  })
})
