// SPDX-License-Identifier: Apache-2.0
/**
 * Where collateral comes from, as Intel's quoting library is told it: /etc/sgx_default_qcnl.conf (or the file that QCNL_CONF_PATH names), in
 * its JSON form with comments or the older KEY=value form; and what the clouds put there. Source: Intel DCAP, QuoteGeneration/qcnl.
 *
 * The host writes this file. It can send us to any service, which then can withhold collateral or serve old one; what it says
 * is believed for its signatures only.
 */
import * as v from 'valibot'
import { PccsError } from './pccs-error.ts'

export interface QcnlConfig {
  /** Where PCK certificates are; ends in a slash. */
  readonly pccsUrl: string
  /** Where TCB info, QE identity and CRLs are. */
  readonly collateralUrl: string
  /** False accepts any TLS certificate, as a PCCS in the own data centre has it. */
  readonly useSecureCert: boolean
  readonly retryTimes: number
  readonly retryDelayMs: number
  /** Asked first for the PCK certificate of this very machine. */
  readonly localPckUrl?: string
  readonly pckCacheHours: number
  readonly collateralCacheHours: number
  readonly localCacheOnly: boolean
  readonly tcbUpdateType?: 'early' | 'standard'
  /** Added when a PCK certificate is asked for. */
  readonly requestOptions: {
    readonly headers: Readonly<Record<string, string>>
    readonly params: Readonly<Record<string, string>>
  }
}

export const defaultQcnlPath = '/etc/sgx_default_qcnl.conf'
export const intelPcsUrl = 'https://api.trustedservices.intel.com/sgx/certification/v4/'

const maxFileCharacters = 65_536
const maxCacheHours = 2160

const strings = v.optional(v.record(v.string(), v.string()), {})
const hours = v.pipe(v.number(), v.minValue(0))
/** Unknown keys are Intel's business; a known one must have its type. */
const schema = v.object({
  pccs_url: v.string(),
  use_secure_cert: v.optional(v.boolean(), true),
  collateral_service: v.optional(v.string()),
  pccs_api_version: v.optional(v.picklist(['3.0', '3.1', '4.0'])),
  retry_times: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(100)), 3),
  retry_delay: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(3600)), 1),
  local_pck_url: v.optional(v.string()),
  pck_cache_expire_hours: v.optional(hours, 168),
  verify_collateral_cache_expire_hours: v.optional(hours, 168),
  local_cache_only: v.optional(v.boolean(), false),
  tcb_update_type: v.optional(v.picklist(['early', 'standard'])),
  custom_request_options: v.optional(
    v.object({ get_cert: v.optional(v.object({ headers: strings, params: strings })) }),
  ),
})

export function parseQcnl(text: string): QcnlConfig {
  if (text.length > maxFileCharacters)
    throw invalid(`expected at most ${maxFileCharacters} characters, got ${text.length}`)
  const content = text.replace(/^\uFEFF/, '')
  return content.trimStart().startsWith('{') || /^\s*\/[/*]/.test(content)
    ? parseJsonForm(content)
    : parseOldForm(content)
}

function parseJsonForm(text: string): QcnlConfig {
  let value: unknown
  try {
    value = JSON.parse(withoutComments(text))
  } catch (cause) {
    throw invalid(`expected JSON with comments: ${cause instanceof Error ? cause.message : cause}`, cause)
  }
  const parsed = v.safeParse(schema, value)
  if (!parsed.success) {
    const [issue] = parsed.issues
    throw invalid(`${v.getDotPath(issue) ?? 'the file'}: expected ${issue.expected}, got ${issue.received}`)
  }
  const file = parsed.output
  const getCert = file.custom_request_options?.get_cert
  return {
    pccsUrl: serviceUrl('pccs_url', file.pccs_url),
    collateralUrl: serviceUrl('collateral_service', file.collateral_service ?? file.pccs_url),
    useSecureCert: file.use_secure_cert,
    retryTimes: file.retry_times,
    retryDelayMs: file.retry_delay * 1000,
    ...(file.local_pck_url ? { localPckUrl: serviceUrl('local_pck_url', file.local_pck_url) } : {}),
    pckCacheHours: Math.min(file.pck_cache_expire_hours, maxCacheHours),
    collateralCacheHours: Math.min(file.verify_collateral_cache_expire_hours, maxCacheHours),
    localCacheOnly: file.local_cache_only,
    ...(file.tcb_update_type ? { tcbUpdateType: file.tcb_update_type } : {}),
    requestOptions: { headers: getCert?.headers ?? {}, params: getCert?.params ?? {} },
  }
}

/** `PCCS_URL=https://…` and `USE_SECURE_CERT=FALSE`, a `#` comments out the rest of a line. */
function parseOldForm(text: string): QcnlConfig {
  const values = new Map<string, string>()
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const content = line.replace(/#.*$/, '').trim()
    if (content === '') continue
    const [, key, value] = /^([A-Z_]+)\s*=\s*(\S.*)$/.exec(content) ?? []
    if (key === undefined || value === undefined) throw invalid(`line ${index + 1}: expected KEY=value, got ${content}`)
    values.set(key, value)
  }
  const url = values.get('PCCS_URL')
  if (url === undefined) throw invalid('expected PCCS_URL=…, it is not there')
  const secure = values.get('USE_SECURE_CERT') ?? 'TRUE'
  if (!/^(true|false)$/i.test(secure)) throw invalid(`USE_SECURE_CERT: expected TRUE or FALSE, got ${secure}`)
  return qcnlFor(url, { useSecureCert: /^true$/i.test(secure) })
}

/** A configuration with the library's defaults. */
export function qcnlFor(url: string, changes: Partial<QcnlConfig> = {}): QcnlConfig {
  const collateralUrl = serviceUrl('pccs_url', url)
  const base = parseJsonForm(JSON.stringify({ pccs_url: collateralUrl }))
  return { ...base, ...changes }
}

/** Intel's library appends to the text; so an URL must be one, of http or https, with a slash at its end. */
function serviceUrl(key: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw invalid(`${key}: expected an http or https URL without query, got ${text}`)
  }
  return url.href.endsWith('/') ? url.href : `${url.href}/`
}

/** Comments outside of strings become nothing; strings stay as they are. */
function withoutComments(text: string): string {
  return text.replace(/"(?:[^"\\\n]|\\.)*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (found) =>
    found.startsWith('"') ? found : ' ',
  )
}

function invalid(message: string, cause?: unknown): PccsError {
  return new PccsError('pccs-configuration-invalid', message, {
    hint: `Correct ${defaultQcnlPath} or the file named instead of it; Intel's package installs a commented example.`,
    ...(cause === undefined ? {} : { cause }),
  })
}
