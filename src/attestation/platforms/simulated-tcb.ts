// SPDX-License-Identifier: Apache-2.0
/**
 * The TCB of simulated machines: their levels, and the documents that judge them as Intel writes them (PCS API v4, "Get TCB Info" and
 * "Get Quoting Enclave Identity"; TCB info v2 is what the v3 API serves).
 */
import { createHash } from 'node:crypto'
import { tcbComponentCount } from '../format.ts'
import type { TcbStatus } from '../tcb.ts'

export interface TcbLevel {
  readonly status: TcbStatus
  readonly components: readonly number[]
  readonly pceSvn: number
  readonly date: string
  readonly advisories: readonly string[]
}

/** One family of machines. */
export const simulatedFmspc = '00c101570e00'
export const simulatedPceId = '0000'

/** From newest to oldest: a machine is at the first level whose every component it reaches. */
export const tcbLevels: readonly TcbLevel[] = (
  [
    ['UpToDate', 16, 13, '2026-03-11', []],
    ['SWHardeningNeeded', 14, 13, '2025-08-13', ['INTEL-SA-00615']],
    ['ConfigurationNeeded', 12, 13, '2025-02-12', ['INTEL-SA-00657', 'INTEL-SA-00767']],
    ['ConfigurationAndSWHardeningNeeded', 10, 13, '2024-03-13', ['INTEL-SA-00615', 'INTEL-SA-00657']],
    ['OutOfDate', 8, 13, '2023-08-09', ['INTEL-SA-00828', 'INTEL-SA-00837']],
    ['OutOfDateConfigurationNeeded', 6, 11, '2022-11-09', ['INTEL-SA-00657', 'INTEL-SA-00730']],
    ['Revoked', 4, 5, '2018-01-04', ['INTEL-SA-00106', 'INTEL-SA-00115']],
  ] as const
).map(([status, svn, pceSvn, date, advisories]) => ({
  status,
  components: Array.from({ length: tcbComponentCount }, (_, index) => [svn, svn, 3, 3, 255, 255][index] ?? 0),
  pceSvn,
  date: `${date}T00:00:00Z`,
  advisories,
}))

/** What a TCB recovery puts on top; no machine reaches it. */
const recoveredLevel: TcbLevel = {
  status: 'UpToDate',
  components: tcbLevels[0]!.components.map((svn, index) => (index < 2 ? svn + 2 : svn)),
  pceSvn: 13,
  date: '2026-09-09T00:00:00Z',
  advisories: [],
}

/** A newer evaluation, by which what was up to date is out of date. */
export const recoveredTcbLevels: readonly TcbLevel[] = [
  recoveredLevel,
  { ...tcbLevels[0]!, status: 'OutOfDate', advisories: ['INTEL-SA-01153'] },
  ...tcbLevels.slice(1),
]

/** Known by its digest: this is no enclave of Intel's. */
export const qeMrSigner = createHash('sha256').update('Cloister simulated quoting enclave: signer').digest()
export const qeMrEnclave = createHash('sha256').update('Cloister simulated quoting enclave: code').digest()
export const qeProductId = 1
export const qeSvns = { upToDate: 8, outOfDate: 6, revoked: 2 } as const

/** When a document was issued, until when it holds, and the number of Intel's TCB evaluation. */
export interface IssueDates {
  readonly issued: Date
  readonly nextUpdate: Date
  readonly evaluation: number
}

/** Common to all three, in Intel's order. */
function heading(dates: IssueDates) {
  const seconds = (date: Date) => date.toISOString().replace('.000Z', 'Z')
  return { issueDate: seconds(dates.issued), nextUpdate: seconds(dates.nextUpdate) }
}

export function tcbInfo(levels: readonly TcbLevel[], dates: IssueDates) {
  return {
    id: 'SGX',
    version: 3,
    ...heading(dates),
    fmspc: simulatedFmspc,
    pceId: simulatedPceId,
    tcbType: 0,
    tcbEvaluationDataNumber: dates.evaluation,
    tcbLevels: levels.map(({ components, pceSvn, ...level }) => ({
      tcb: { sgxtcbcomponents: components.map((svn) => ({ svn })), pcesvn: pceSvn },
      ...judgement(level),
    })),
  }
}

export function tcbInfoV2(levels: readonly TcbLevel[], dates: IssueDates) {
  const numbered = (components: readonly number[]) =>
    Object.fromEntries(components.map((svn, index) => [`sgxtcbcomp${String(index + 1).padStart(2, '0')}svn`, svn]))
  return {
    version: 2,
    ...heading(dates),
    fmspc: simulatedFmspc,
    pceId: simulatedPceId,
    tcbType: 0,
    tcbEvaluationDataNumber: dates.evaluation,
    tcbLevels: levels.map(({ components, pceSvn, ...level }) => ({
      tcb: { ...numbered(components), pcesvn: pceSvn },
      ...judgement(level),
    })),
  }
}

function judgement({ status, date, advisories }: Omit<TcbLevel, 'components' | 'pceSvn'>) {
  return { tcbDate: date, tcbStatus: status, ...(advisories.length > 0 ? { advisoryIDs: advisories } : {}) }
}

export function qeIdentity(dates: IssueDates) {
  return {
    id: 'QE',
    version: 2,
    ...heading(dates),
    tcbEvaluationDataNumber: dates.evaluation,
    miscselect: '00000000',
    miscselectMask: 'FFFFFFFF',
    attributes: '11000000000000000000000000000000',
    attributesMask: 'FBFFFFFFFFFFFFFF0000000000000000',
    mrsigner: qeMrSigner.toString('hex').toUpperCase(),
    isvprodid: qeProductId,
    tcbLevels: [
      { tcb: { isvsvn: qeSvns.upToDate }, tcbDate: '2026-03-11T00:00:00Z', tcbStatus: 'UpToDate' },
      {
        tcb: { isvsvn: qeSvns.outOfDate },
        tcbDate: '2021-11-10T00:00:00Z',
        tcbStatus: 'OutOfDate',
        advisoryIDs: ['INTEL-SA-00615'],
      },
      {
        tcb: { isvsvn: qeSvns.revoked },
        tcbDate: '2019-05-15T00:00:00Z',
        tcbStatus: 'Revoked',
        advisoryIDs: ['INTEL-SA-00219'],
      },
    ],
  }
}
