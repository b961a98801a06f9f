// SPDX-License-Identifier: Apache-2.0
/** What `cloister doctor` finds about collateral: is the service there, whose root signs, until when, and how up to date this platform is. */
import { isRawSignature, verifyTcbSignerChain } from '../attestation/chain.ts'
import { intelRootFingerprint } from '../attestation/format.ts'
import type { PccsClient } from '../attestation/pccs.ts'
import { validityOfDocument, validityOfRevocation } from '../attestation/pccs-answers.ts'
import { parseQeIdentity } from '../attestation/tcb.ts'
import { trustCollateral, verifyQuote } from '../attestation/verify.ts'
import { publicError } from '../errors.ts'
import type { Service } from './collateral-service.ts'
import type { Finding } from './machine-checks.ts'

const dayMs = 86_400_000
/** Intel reissues about a month ahead: less than this left means that a cache does not renew. */
const soonMs = 3 * dayMs

/** Asks the service itself, past every cache. */
export async function serviceFindings(client: PccsClient, { config, origin }: Service, now: Date): Promise<Finding[]> {
  const check = 'collateral service'
  let answer: Awaited<ReturnType<PccsClient['probe']>>
  try {
    answer = await client.probe()
  } catch (thrown) {
    const { code, message, hint } = publicError(thrown)
    return [
      { check, state: 'missing', found: `${config.collateralUrl} (${origin}): ${code}: ${message}`, advice: hint },
    ]
  }
  const { qeIdentity, rootCrl } = answer
  return [
    { check, state: 'ok', found: `${config.collateralUrl} (${origin}) answers` },
    signerFinding(qeIdentity),
    dateFinding('QE identity', validityOfDocument(qeIdentity).nextUpdate, now),
    dateFinding('root CRL', validityOfRevocation(rootCrl).nextUpdate, now),
  ]
}

function signerFinding({
  body,
  signature,
  issuerChain,
}: {
  body: string
  signature: string
  issuerChain: string
}): Finding {
  const check = 'collateral signer'
  try {
    const chain = verifyTcbSignerChain(issuerChain)
    if (!isRawSignature(Buffer.from(body), chain.leafKey, Buffer.from(signature, 'hex'))) {
      const advice = 'Somebody changed it on the way: ask another service.'
      return { check, state: 'missing', found: 'the QE identity is not signed by its signer', advice }
    }
    const { evaluationNumber } = parseQeIdentity(body)
    const root = chain.root.fingerprint
    if (root === intelRootFingerprint) return { check, state: 'ok', found: `Intel, evaluation ${evaluationNumber}` }
    const advice = 'A simulated platform has such a root. Policies that name Intel refuse everything under it.'
    return { check, state: 'warning', found: `a root that is not Intel's: ${root}`, advice }
  } catch (thrown) {
    const { code, message, hint } = publicError(thrown)
    return { check, state: 'missing', found: `${code}: ${message}`, advice: hint }
  }
}

function dateFinding(what: string, nextUpdate: Date, now: Date): Finding {
  const check = `dates of ${what}`
  const found = `valid until ${nextUpdate.toISOString()}`
  const leftMs = nextUpdate.getTime() - now.getTime()
  const advice = 'Have the PCCS refresh its cache, and check the clock of this machine.'
  if (leftMs < 0) return { check, state: 'missing', found, advice }
  return leftMs < soonMs ? { check, state: 'warning', found, advice } : { check, state: 'ok', found }
}

/** How up to date the platform is that made this quote. */
export async function platformFinding(
  client: PccsClient,
  quote: Uint8Array | undefined,
  rootFingerprint: string,
  now: Date,
): Promise<Finding> {
  const check = 'TCB of this platform'
  if (quote === undefined) {
    const advice = 'Make a quote in an enclave on this machine (cat /dev/attestation/quote) and name it with --quote.'
    return { check, state: 'unknown', found: 'no quote to judge', advice }
  }
  try {
    const trusted = trustCollateral(await client.collateralFor(quote), rootFingerprint)
    const { tcbStatus, advisories, platform, tcbEvaluationNumber } = verifyQuote(quote, trusted, { now: now.getTime() })
    const listed = advisories.length > 0 ? `, ${advisories.join(', ')}` : ''
    const found = `${tcbStatus} at evaluation ${tcbEvaluationNumber}, FMSPC ${platform.fmspc}${listed}`
    if (tcbStatus === 'UpToDate') return { check, state: 'ok', found }
    const state = tcbStatus === 'Revoked' ? 'missing' : 'warning'
    return { check, state, found, advice: adviceFor[tcbStatus] }
  } catch (thrown) {
    const { code, message, hint } = publicError(thrown)
    return { check, state: 'missing', found: `${code}: ${message}`, advice: hint }
  }
}

const adviceFor = {
  SWHardeningNeeded:
    'The enclave must be hardened in software against these advisories; accept them by name in the policy.',
  ConfigurationNeeded: 'Change the firmware settings that the advisories name, such as hyper-threading.',
  ConfigurationAndSWHardeningNeeded:
    'Change the firmware settings and accept the advisories that software hardening answers.',
  OutOfDate: 'Update microcode, firmware and the SGX software of this machine, then provision it again.',
  OutOfDateConfigurationNeeded:
    'Update microcode, firmware and SGX software, and change the settings that the advisories name.',
  Revoked: 'Intel trusts this platform no more: use another machine.',
} as const
