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
  type SimulatedMachine,
} from './simulated-authority.ts'
import { pckSerialNumbers } from './simulated-pck.ts'
import { type IssueDates, qeIdentity, recoveredTcbLevels, tcbInfo, tcbInfoV2, tcbLevels } from './simulated-tcb.ts'

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

/** What the documents say: plain data, so that the same terms need not be signed twice. */
export interface CollateralTerms {
  readonly issued: Date
  readonly nextUpdate: Date
  readonly recovery: boolean
  readonly revokedMembers: readonly AuthorityMember[]
  readonly revokedMachines: readonly SimulatedMachine[]
}

/** As of now and the variants in force. Issued on the hour, so that what is fetched twice within one is the same. */
export async function collateralTerms(authority: SimulatedAuthority, now: Date): Promise<CollateralTerms> {
  const variants = await authority.variants()
  const expiredForMs = variants.authority.has('expired-collateral') ? validForMs + 8 * dayMs : 0
  const issuedMs = Math.floor(now.getTime() / hourMs) * hourMs - expiredForMs
  const machines = await authority.machines()
  return {
    issued: new Date(issuedMs),
    nextUpdate: new Date(issuedMs + validForMs),
    recovery: variants.authority.has('tcb-recovery'),
    revokedMembers: [
      ...(variants.authority.has('revoked-ca') ? (['platformCa', 'processorCa'] as const) : []),
      ...(variants.authority.has('revoked-tcb-signer') ? (['tcbSigner'] as const) : []),
    ],
    revokedMachines: machines.filter(({ name }) => variants.ofMachine(name).has('revoked-pck')),
  }
}

export function issueCollateral(authority: SimulatedAuthority, terms: CollateralTerms): SimulatedCollateral {
  const dates: IssueDates = { ...terms, evaluation: terms.recovery ? 19 : 18 }
  const levels = terms.recovery ? recoveredTcbLevels : tcbLevels
  const signer = authority.keys('tcbSigner').privateKey
  const { root, tcbSigner, platformCa, processorCa } = authority.certificates
  const pckCrl = (ca: PckCa, commonName: string) => {
    const machines = terms.revokedMachines.filter((machine) => machine.ca === ca)
    return crl(
      authority,
      caMember(ca),
      commonName,
      dates,
      machines.flatMap((machine) => pckSerialNumbers(authority, machine)),
    )
  }
  const revokedMembers = terms.revokedMembers.map((member) => authority.serialNumber(member))
  return {
    tcbInfo: signedJson('tcbInfo', tcbInfo(levels, dates), signer),
    tcbInfoV2: signedJson('tcbInfo', tcbInfoV2(levels, dates), signer),
    qeIdentity: signedJson('enclaveIdentity', qeIdentity(dates), signer),
    rootCrl: crl(authority, 'root', pkiNames.root, dates, revokedMembers),
    pckCrls: {
      platform: pckCrl('platform', pkiNames.platformCa),
      processor: pckCrl('processor', pkiNames.processorCa),
    },
    tcbSignerChain: tcbSigner.pem + root.pem,
    pckCaChains: { platform: platformCa.pem + root.pem, processor: processorCa.pem + root.pem },
  }
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
