// SPDX-License-Identifier: Apache-2.0
/** `cloister collateral fetch|show`: bundles for machines that reach no PCCS, and what is in one. Joins nothing, trusts nothing. */
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { QuoteCollateral } from '../attestation/collateral.ts'
import { intelRootFingerprint } from '../attestation/format.ts'
import { readCollateralBundle } from '../attestation/offline-collateral.ts'
import { validityProblems } from '../attestation/validity.ts'
import { type TrustedCollateral, trustCollateral } from '../attestation/verify.ts'
import { CodedError, type PublicError } from '../errors.ts'
import { chooseService, openService, rootFingerprintOfFile, type ServiceOptions } from './collateral-service.ts'
import { type CliContext, exitStatus } from './context.ts'
import { fetchSubject, readSubject } from './subject.ts'

export interface FetchOptions extends ServiceOptions {
  /** Certificate of the root that the quote must chain to; Intel's if none is named. */
  readonly root?: string
  /** Where to write the bundle; standard output if nowhere. */
  readonly out?: string
}

export interface ShowOptions {
  readonly root?: string
  readonly json?: boolean
}

type Context = Pick<CliContext, 'cwd' | 'env' | 'now' | 'stdout' | 'stderr' | 'signal'>

export async function fetchCollateral(context: Context, options: FetchOptions, subject: string): Promise<number> {
  const rootFingerprint = rootOf(context.cwd, options.root)
  const { config, origin } = await chooseService(context, options)
  const bytes = await fetchSubject(subject, context.cwd, context.signal)
  const { quote } = readSubject(bytes, context.now().getTime())
  const client = openService(context, config, rootFingerprint)
  const stop = () => client.close()
  context.signal.addEventListener('abort', stop)
  try {
    const collateral = await client.collateralFor(quote)
    const trusted = trustCollateral(collateral, rootFingerprint)
    const text = `${JSON.stringify(collateral, null, 1)}\n`
    if (options.out === undefined) context.stdout.write(text)
    else writeFileSync(resolve(context.cwd, options.out), text)
    const where = options.out ?? 'standard output'
    context.stderr.write(`collateral from ${config.collateralUrl} (${origin}) to ${where}\n${summary(trusted)}`)
    return exitStatus.ok
  } finally {
    context.signal.removeEventListener('abort', stop)
    client.close()
  }
}

/** Exit status 0: signed under the root and valid now. */
export async function showCollateral(context: Context, options: ShowOptions, path: string): Promise<number> {
  const collateral = await readCollateralBundle(resolve(context.cwd, path))
  const rootFingerprint = rootOf(context.cwd, options.root)
  const judged = judge(collateral, rootFingerprint, context.now())
  if (options.json) {
    context.stdout.write(`${JSON.stringify(judged, undefined, 2)}\n`)
  } else {
    const { trusted, problems } = judged
    context.stdout.write(trusted === null ? 'nothing in it is proven\n' : linesOf(trusted))
    for (const { code, message, hint } of problems) context.stdout.write(`${code}: ${message}\n  ${hint}\n`)
    if (problems.length === 0) context.stdout.write('signed under this root, and valid now\n')
  }
  return judged.problems.length === 0 ? exitStatus.ok : exitStatus.failed
}

interface Facts {
  readonly root: string
  readonly fmspc: string
  readonly pceId: string
  readonly tcbInfoVersion: number
  readonly tcbEvaluationNumber: number
  readonly qeEvaluationNumber: number
  readonly revokedByRoot: number
  readonly revokedByPckCa: number
  readonly validity: readonly { readonly what: string; readonly from: string; readonly until: string }[]
}

interface Judged {
  /** Null when a signature, chain or revocation speaks against it: then its content says nothing. */
  readonly trusted: Facts | null
  readonly problems: readonly PublicError[]
}

function judge(collateral: QuoteCollateral, rootFingerprint: string, now: Date): Judged {
  try {
    const trusted = trustCollateral(collateral, rootFingerprint)
    return { trusted: factsOf(trusted), problems: validityProblems(trusted.validity, now.getTime(), 0) }
  } catch (thrown) {
    if (!(thrown instanceof CodedError)) throw thrown
    const { code, message, hint } = thrown
    return { trusted: null, problems: [{ code, message, hint }] }
  }
}

function factsOf(trusted: TrustedCollateral): Facts {
  return {
    root: trusted.rootFingerprint,
    fmspc: trusted.tcbInfo.fmspc,
    pceId: trusted.tcbInfo.pceId,
    tcbInfoVersion: trusted.tcbInfo.version,
    tcbEvaluationNumber: trusted.tcbInfo.evaluationNumber,
    qeEvaluationNumber: trusted.qeIdentity.evaluationNumber,
    revokedByRoot: trusted.rootCrl.revoked.size,
    revokedByPckCa: trusted.pckCrl.revoked.size,
    validity: trusted.validity.map(({ what, notBefore, notAfter }) => ({
      what,
      from: new Date(notBefore).toISOString(),
      until: new Date(notAfter).toISOString(),
    })),
  }
}

const summary = (trusted: TrustedCollateral): string => linesOf(factsOf(trusted))

function linesOf(facts: Facts): string {
  const intel = facts.root === intelRootFingerprint
  const lines = [
    `root         ${facts.root} (${intel ? 'Intel' : 'not Intel: no hardware need stand behind it'})`,
    `platforms    FMSPC ${facts.fmspc}, PCE ${facts.pceId}`,
    `evaluation   TCB info ${facts.tcbEvaluationNumber}, QE identity ${facts.qeEvaluationNumber}`,
    `revoked      ${facts.revokedByRoot} by the root, ${facts.revokedByPckCa} by the PCK CA`,
    ...facts.validity.map(({ what, from, until }) => `valid        ${day(from)} to ${day(until)}  ${what}`),
  ]
  return `${lines.join('\n')}\n`
}

const day = (iso: string): string => iso.slice(0, 16).replace('T', ' ')

function rootOf(cwd: string, path: string | undefined): string {
  return path === undefined ? intelRootFingerprint : rootFingerprintOfFile(resolve(cwd, path))
}
