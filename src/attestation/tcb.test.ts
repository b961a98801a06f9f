import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { codeOf } from '../../test/code-of.ts'
import { AttestationError } from './error.ts'
import {
  convergeStatus,
  matchPlatformLevel,
  matchQeLevel,
  parseQeIdentity,
  parseTcbInfo,
  type TcbInfo,
  tcbStatuses,
} from './tcb.ts'

const level = (componentSvns: readonly number[], pceSvn: number) => ({
  status: 'UpToDate' as const,
  date: 0,
  advisories: [],
  componentSvns,
  pceSvn,
})
const info = (levels: TcbInfo['levels']): TcbInfo => ({
  version: 3,
  fmspc: '000000000000',
  pceId: '0000',
  issueDate: 0,
  nextUpdate: 0,
  evaluationNumber: 1,
  levels,
})
const pck = (componentSvns: readonly number[], pceSvn: number) => ({
  ppid: '',
  componentSvns,
  pceSvn,
  cpuSvn: '',
  pceId: '0000',
  fmspc: '000000000000',
  sgxType: 'Standard' as const,
  platformInstanceId: undefined,
})
const svns = fc.array(fc.nat(3), { minLength: 16, maxLength: 16 })
const someLevels = fc.array(fc.tuple(svns, fc.nat(3)), { minLength: 1, maxLength: 6 })

describe('matching of levels', () => {
  test('the first level that is not above the platform in any component', () => {
    fc.assert(
      fc.property(someLevels, svns, fc.nat(3), (levels, have, pceSvn) => {
        const list = levels.map(([needed, pce]) => level(needed, pce))
        const fits = list.map((it) => pceSvn >= it.pceSvn && have.every((svn, i) => svn >= it.componentSvns[i]!))
        const first = fits.indexOf(true)
        const matched = () => matchPlatformLevel(pck(have, pceSvn), info(list))
        if (first < 0) expect(codeOf(matched)).toBe('tcb-level-unknown')
        else expect(matched()).toBe(list[first])
      }),
    )
  })
  test('one component below is below, whichever it is', () => {
    for (let index = 0; index < 16; index++) {
      const have = Array.from({ length: 16 }, (_, i) => (i === index ? 4 : 9))
      const matched = matchPlatformLevel(
        pck(have, 13),
        info([level(Array(16).fill(5), 13), level(Array(16).fill(4), 13)]),
      )
      expect(matched.componentSvns[0]).toBe(4)
    }
  })
  test('a platform that is ahead of all levels is at the first', () => {
    const first = level(Array(16).fill(5), 13)
    expect(matchPlatformLevel(pck(Array(16).fill(255), 65_535), info([first, level(Array(16).fill(4), 13)]))).toBe(
      first,
    )
  })
})

/** Intel QVL, QuoteVerifier: all combinations. */
test('convergence of platform and quoting enclave', () => {
  const table = tcbStatuses.map((platform) => [
    platform,
    convergeStatus(platform, 'UpToDate'),
    convergeStatus(platform, 'OutOfDate'),
    convergeStatus(platform, 'Revoked'),
  ])
  expect(table).toEqual([
    ['UpToDate', 'UpToDate', 'OutOfDate', 'Revoked'],
    ['SWHardeningNeeded', 'SWHardeningNeeded', 'OutOfDate', 'Revoked'],
    ['ConfigurationNeeded', 'ConfigurationNeeded', 'OutOfDateConfigurationNeeded', 'Revoked'],
    [
      'ConfigurationAndSWHardeningNeeded',
      'ConfigurationAndSWHardeningNeeded',
      'OutOfDateConfigurationNeeded',
      'Revoked',
    ],
    ['OutOfDate', 'OutOfDate', 'OutOfDate', 'Revoked'],
    ['OutOfDateConfigurationNeeded', 'OutOfDateConfigurationNeeded', 'OutOfDateConfigurationNeeded', 'Revoked'],
    ['Revoked', 'Revoked', 'Revoked', 'Revoked'],
  ])
})

const dates = { issueDate: '2026-10-15T00:00:00Z', nextUpdate: '2026-11-14T00:00:00Z', tcbEvaluationDataNumber: 19 }
const common = { ...dates, fmspc: '00C101570E00', pceId: '0000', tcbType: 0 }
const v2Svns = Object.fromEntries(
  Array.from({ length: 16 }, (_, i) => [`sgxtcbcomp${String(i + 1).padStart(2, '0')}svn`, i]),
)
const tail = { tcbDate: '2026-05-13T00:00:00Z', tcbStatus: 'UpToDate' }

test('TCB info of version 2 and 3 say the same', () => {
  const two = { version: 2, ...common, tcbLevels: [{ tcb: { ...v2Svns, pcesvn: 13 }, ...tail }] }
  const components = Array.from({ length: 16 }, (_, svn) => ({ svn, category: 'BIOS' }))
  const three = {
    id: 'SGX',
    version: 3,
    ...common,
    tcbLevels: [{ tcb: { sgxtcbcomponents: components, pcesvn: 13 }, ...tail }],
  }
  const [first, second] = [parseTcbInfo(JSON.stringify(two)), parseTcbInfo(JSON.stringify(three))]
  expect({ ...first, version: 3 }).toEqual(second)
  expect(first.fmspc).toBe('00c101570e00')
  expect(first.levels[0]!.componentSvns).toEqual(Array.from({ length: 16 }, (_, i) => i))
  const missing = { ...two, tcbLevels: [{ tcb: { ...v2Svns, sgxtcbcomp16svn: undefined, pcesvn: 13 }, ...tail }] }
  expect(codeOf(() => parseTcbInfo(JSON.stringify(missing)))).toBe('tcb-info-malformed')
})

test('a QE level is matched by SVN, and an older QE than all is none', () => {
  const identity = parseQeIdentity(
    JSON.stringify({
      id: 'QE',
      version: 2,
      ...dates,
      miscselect: '00000000',
      miscselectMask: 'FFFFFFFF',
      attributes: `11${'00'.repeat(15)}`,
      attributesMask: `FB${'FF'.repeat(15)}`,
      mrsigner: 'AA'.repeat(32),
      isvprodid: 1,
      tcbLevels: [
        { tcb: { isvsvn: 8 }, ...tail },
        { tcb: { isvsvn: 6 }, ...tail, tcbStatus: 'OutOfDate' },
      ],
    }),
  )
  const status = (svn: number) => matchQeLevel({ svn } as never, identity).status
  expect([9, 8, 7, 6].map(status)).toEqual(['UpToDate', 'UpToDate', 'OutOfDate', 'OutOfDate'])
  expect(codeOf(() => status(5))).toBe('qe-tcb-level-unknown')
  expect(identity.mrSigner).toBe('aa'.repeat(32))
})

test('any text and any JSON parse or are refused', () => {
  const survives = (text: string): void => {
    for (const parse of [parseTcbInfo, parseQeIdentity]) {
      try {
        parse(text)
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(AttestationError)
      }
    }
  }
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), survives), { interruptAfterTimeLimit: 1000, numRuns: 1000 })
})
