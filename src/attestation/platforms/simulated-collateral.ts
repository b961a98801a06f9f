// SPDX-License-Identifier: Apache-2.0
/**
 * What the simulated authority says about its platforms, signed as Intel signs it: TCB info v3 and v2, QE identity v2, CRLs of the
 * root and of both PCK CAs. Signatures of JSON are raw r‖s over the exact bytes of the inner object.
 */
import { type KeyObject, sign } from 'node:crypto'
import { createCrl, type Encoded } from '../../x509/write.ts'
import { pkiNames } from '../format.ts'
import {
  type AuthorityMember,
  caMember,
  intelName,
  type PckCa,
  type SimulatedAuthority,
} from './simulated-authority.ts'
import { pckSerialNumbers } from './simulated-pck.ts'
import { type IssueDates, qeIdentity, recoveredTcbLevels, tcbInfo, tcbInfoV2, tcbLevels } from './simulated-tcb.ts'
import type { AuthorityVariant } from './simulated-variants.ts'

const hourMs = 3_600_000
const dayMs = 24 * hourMs
const validForMs = 30 * dayMs

/** A signed JSON object: `body` is what was signed, `document` what the services send. */
export interface SignedJson {
  readonly body: string
  readonly signature: string
  readonly document: string
}

export interface SimulatedCollateral {
  readonly tcbInfo: SignedJson
  readonly tcbInfoV2: SignedJson
  readonly qeIdentity: SignedJson
  readonly rootCrl: Encoded
  readonly pckCrls: Readonly<Record<PckCa, Encoded>>
  /** PEM, signer first, root last. */
  readonly tcbSignerChain: string
  readonly pckCaChains: Readonly<Record<PckCa, string>>
}

/** Issued on the hour, so that what was fetched twice within one is dated the same. */
export async function issueCollateral(authority: SimulatedAuthority, now: Date): Promise<SimulatedCollateral> {
  const variants = await authority.variants()
  const recovery = variants.authority.has('tcb-recovery')
  const hour = Math.floor(now.getTime() / hourMs) * hourMs
  const expiredForMs = variants.authority.has('expired-collateral') ? validForMs + 8 * dayMs : 0
  const dates: IssueDates = {
    issued: new Date(hour - expiredForMs),
    nextUpdate: new Date(hour - expiredForMs + validForMs),
    evaluation: recovery ? 19 : 18,
  }
  const levels = recovery ? recoveredTcbLevels : tcbLevels
  const revokedMachines = (await authority.machines()).filter(({ name }) => variants.ofMachine(name).has('revoked-pck'))
  const signer = authority.keys('tcbSigner').privateKey
  const { root, tcbSigner, platformCa, processorCa } = authority.certificates
  const pckCrl = (ca: PckCa) =>
    crl(authority, caMember(ca), ca === 'platform' ? pkiNames.platformCa : pkiNames.processorCa, dates, [
      ...revokedMachines
        .filter((machine) => machine.ca === ca)
        .flatMap((machine) => pckSerialNumbers(authority, machine)),
    ])
  return {
    tcbInfo: signedJson('tcbInfo', tcbInfo(levels, dates), signer),
    tcbInfoV2: signedJson('tcbInfo', tcbInfoV2(levels, dates), signer),
    qeIdentity: signedJson('enclaveIdentity', qeIdentity(dates), signer),
    rootCrl: crl(authority, 'root', pkiNames.root, dates, revokedMembers(authority, variants.authority)),
    pckCrls: { platform: pckCrl('platform'), processor: pckCrl('processor') },
    tcbSignerChain: tcbSigner.pem + root.pem,
    pckCaChains: { platform: platformCa.pem + root.pem, processor: processorCa.pem + root.pem },
  }
}

function revokedMembers(authority: SimulatedAuthority, variants: ReadonlySet<AuthorityVariant>): bigint[] {
  const members: AuthorityMember[] = [
    ...(variants.has('revoked-ca') ? (['platformCa', 'processorCa'] as const) : []),
    ...(variants.has('revoked-tcb-signer') ? (['tcbSigner'] as const) : []),
  ]
  return members.map((member) => authority.serialNumber(member))
}

function crl(
  authority: SimulatedAuthority,
  issuer: AuthorityMember,
  commonName: string,
  dates: IssueDates,
  revoked: bigint[],
) {
  return createCrl({
    issuer: intelName(commonName),
    number: BigInt(dates.issued.getTime() / 1000),
    thisUpdate: dates.issued,
    nextUpdate: dates.nextUpdate,
    revoked: revoked.map((serialNumber) => ({ serialNumber, revokedAt: dates.issued })),
    signingKey: authority.keys(issuer).privateKey,
  })
}

function signedJson(name: string, value: object, key: KeyObject): SignedJson {
  const body = JSON.stringify(value)
  const signature = sign('sha256', Buffer.from(body), { key, dsaEncoding: 'ieee-p1363' }).toString('hex')
  return { body, signature, document: `{"${name}":${body},"signature":"${signature}"}` }
}

/** One bundle as `attestation-vectors` and Intel's sgx_ql_qve_collateral_t have it, for a quote under this PCK CA. */
export function collateralBundle(collateral: SimulatedCollateral, ca: PckCa) {
  return {
    pck_crl_issuer_chain: collateral.pckCaChains[ca],
    root_ca_crl: collateral.rootCrl.der.toString('hex'),
    pck_crl: collateral.pckCrls[ca].der.toString('hex'),
    tcb_info_issuer_chain: collateral.tcbSignerChain,
    tcb_info: collateral.tcbInfo.body,
    tcb_info_signature: collateral.tcbInfo.signature,
    qe_identity_issuer_chain: collateral.tcbSignerChain,
    qe_identity: collateral.qeIdentity.body,
    qe_identity_signature: collateral.qeIdentity.signature,
  }
}
