// SPDX-License-Identifier: Apache-2.0
/**
 * How up to date a platform and its quoting enclave are: Intel's TCB info (version 3, and 2 of old collateral) and QE identity
 * (version 2), and the rules by which levels are matched (Intel PCS API, "Get TCB Info" and "Get QE Identity"). Only text
 * whose signature was verified gets here from verify.ts; it is parsed strictly all the same. Fields that Intel adds are ignored.
 */
import * as v from 'valibot'
import { AttestationError } from './error.ts'
import { tcbComponentCount } from './format.ts'
import type { PckIdentity } from './pck.ts'
import type { EnclaveReport } from './quote.ts'

export const tcbStatuses = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const
export type TcbStatus = (typeof tcbStatuses)[number]
export type QeStatus = 'UpToDate' | 'OutOfDate' | 'Revoked'

export interface TcbLevel<Status> {
  readonly status: Status
  /** Since when the level is what it is; milliseconds. */
  readonly date: number
  readonly advisories: readonly string[]
}

export interface PlatformTcbLevel extends TcbLevel<TcbStatus> {
  readonly componentSvns: readonly number[]
  readonly pceSvn: number
}

interface Dated {
  readonly issueDate: number
  readonly nextUpdate: number
  readonly evaluationNumber: number
}

export interface TcbInfo extends Dated {
  readonly version: 2 | 3
  readonly fmspc: string
  readonly pceId: string
  /** Highest first, as Intel sorts them: the first that fits is the platform's. */
  readonly levels: readonly PlatformTcbLevel[]
}

export interface QeIdentity extends Dated {
  readonly miscSelect: Buffer
  readonly miscSelectMask: Buffer
  readonly attributes: Buffer
  readonly attributesMask: Buffer
  readonly mrSigner: string
  readonly productId: number
  readonly levels: readonly (TcbLevel<QeStatus> & { readonly svn: number })[]
}

const time = v.pipe(
  v.string(),
  v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
  v.transform((text) => Date.parse(text)),
  v.finite(),
)
const hexOf = (size: number) => v.pipe(v.string(), v.hexadecimal(), v.length(size * 2), v.toLowerCase())
const bytesOf = (size: number) =>
  v.pipe(
    hexOf(size),
    v.transform((text) => Buffer.from(text, 'hex')),
  )
const integer = (maximum: number) => v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(maximum))
const svn = integer(255)
const svn16 = integer(65_535)
const advisories = v.optional(v.array(v.string()), [])
const dated = { issueDate: time, nextUpdate: time, tcbEvaluationDataNumber: integer(0xffff_ffff) }

const componentsV3 = v.pipe(
  v.object({
    sgxtcbcomponents: v.pipe(v.array(v.object({ svn })), v.length(tcbComponentCount)),
    pcesvn: svn16,
  }),
  v.transform((tcb) => ({ componentSvns: tcb.sgxtcbcomponents.map((component) => component.svn), pceSvn: tcb.pcesvn })),
)
const namesV2 = Array.from({ length: tcbComponentCount }, (_, i) => `sgxtcbcomp${String(i + 1).padStart(2, '0')}svn`)
const componentsV2 = v.pipe(
  v.object(Object.fromEntries([...namesV2, 'pcesvn'].map((name) => [name, name === 'pcesvn' ? svn16 : svn]))),
  v.transform((tcb) => ({ componentSvns: namesV2.map((name) => tcb[name]!), pceSvn: tcb.pcesvn! })),
)

const tcbFields = { ...dated, fmspc: hexOf(6), pceId: hexOf(2), tcbType: v.literal(0) }
const level = { tcbDate: time, tcbStatus: v.picklist(tcbStatuses), advisoryIDs: advisories }
const tcbInfoSchema = v.variant('version', [
  v.object({
    version: v.literal(3),
    id: v.literal('SGX'),
    ...tcbFields,
    tcbLevels: v.array(v.object({ tcb: componentsV3, ...level })),
  }),
  v.object({
    version: v.literal(2),
    // Version 2 was only ever written for SGX; the field came with version 3.
    id: v.optional(v.literal('SGX')),
    ...tcbFields,
    tcbLevels: v.array(v.object({ tcb: componentsV2, ...level })),
  }),
])

const qeIdentitySchema = v.object({
  id: v.literal('QE'),
  version: v.literal(2),
  ...dated,
  miscselect: bytesOf(4),
  miscselectMask: bytesOf(4),
  attributes: bytesOf(16),
  attributesMask: bytesOf(16),
  mrsigner: hexOf(32),
  isvprodid: svn16,
  tcbLevels: v.array(
    v.object({
      tcb: v.object({ isvsvn: svn16 }),
      tcbDate: time,
      tcbStatus: v.picklist(['UpToDate', 'OutOfDate', 'Revoked']),
      advisoryIDs: advisories,
    }),
  ),
})

export function parseTcbInfo(text: string): TcbInfo {
  const info = parseSigned(tcbInfoSchema, text, 'tcb-info-malformed', 'TCB info')
  return {
    ...datesOf(info),
    version: info.version,
    fmspc: info.fmspc,
    pceId: info.pceId,
    levels: info.tcbLevels.map((it) => ({
      ...it.tcb,
      status: it.tcbStatus,
      date: it.tcbDate,
      advisories: it.advisoryIDs,
    })),
  }
}

export function parseQeIdentity(text: string): QeIdentity {
  const identity = parseSigned(qeIdentitySchema, text, 'qe-identity-malformed', 'QE identity')
  return {
    ...datesOf(identity),
    miscSelect: identity.miscselect,
    miscSelectMask: identity.miscselectMask,
    attributes: identity.attributes,
    attributesMask: identity.attributesMask,
    mrSigner: identity.mrsigner,
    productId: identity.isvprodid,
    levels: identity.tcbLevels.map((it) => ({
      svn: it.tcb.isvsvn,
      status: it.tcbStatus,
      date: it.tcbDate,
      advisories: it.advisoryIDs,
    })),
  }
}

/** The first level at or below which the platform lies in every component. */
export function matchPlatformLevel(pck: PckIdentity, info: TcbInfo): PlatformTcbLevel {
  const match = info.levels.find(
    (it) => pck.pceSvn >= it.pceSvn && it.componentSvns.every((needed, index) => pck.componentSvns[index]! >= needed),
  )
  if (match) return match
  throw new AttestationError(
    'tcb-level-unknown',
    `Expected a platform at one of ${info.levels.length} TCB levels, got one below all: ${pck.componentSvns.join('.')} PCE ${pck.pceSvn}.`,
    { hint: 'Update microcode and platform software of this host, then let it fetch a new PCK certificate.' },
  )
}

export function matchQeLevel(report: EnclaveReport, identity: QeIdentity): QeIdentity['levels'][number] {
  const match = identity.levels.find((it) => report.svn >= it.svn)
  if (match) return match
  throw new AttestationError(
    'qe-tcb-level-unknown',
    `Expected a quoting enclave at one of ${identity.levels.length} levels, got one below all: SVN ${report.svn}.`,
    { hint: 'Update the quoting enclave (Intel SGX DCAP) of this host.' },
  )
}

/** Intel's rule: an old quoting enclave drags the platform down, and keeps its need of configuration. */
export function convergeStatus(platform: TcbStatus, qe: QeStatus): TcbStatus {
  if (qe === 'Revoked') return 'Revoked'
  if (qe === 'UpToDate') return platform
  if (platform === 'UpToDate' || platform === 'SWHardeningNeeded') return 'OutOfDate'
  if (platform === 'ConfigurationNeeded' || platform === 'ConfigurationAndSWHardeningNeeded') {
    return 'OutOfDateConfigurationNeeded'
  }
  return platform
}

function datesOf(it: { issueDate: number; nextUpdate: number; tcbEvaluationDataNumber: number }): Dated {
  return { issueDate: it.issueDate, nextUpdate: it.nextUpdate, evaluationNumber: it.tcbEvaluationDataNumber }
}

function parseSigned<Schema extends v.GenericSchema>(
  schema: Schema,
  text: string,
  code: 'tcb-info-malformed' | 'qe-identity-malformed',
  what: string,
): v.InferOutput<Schema> {
  const hint = `Fetch the collateral again; if that does not help, this version of ${what} is newer than Cloister knows.`
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    throw new AttestationError(code, `${what}: expected JSON, got something else.`, { hint, cause })
  }
  const result = v.safeParse(schema, json, { abortEarly: true })
  if (result.success) return result.output
  const [issue] = result.issues
  throw new AttestationError(code, `${what}: ${v.getDotPath(issue) ?? 'top level'}: ${issue.message}.`, { hint })
}
