/**
 * A small SGX PKI for tests that can go wrong in any one place: `forge()` gives a quote and collateral that verify as UpToDate,
 * `forge((plan) => …)` the same with something changed before it is signed. So a refusal is of the change and of nothing else.
 */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import type { QuoteCollateral } from '../src/attestation/collateral.ts'
import {
  intelQeVendorId,
  pckOids,
  pkiNames,
  quoteFields,
  reportFields,
  tcbComponentCount,
  tcbComponentOid,
} from '../src/attestation/format.ts'
import { trustCollateral, verifyQuote } from '../src/attestation/verify.ts'
import {
  authorityKeyIdentifier,
  basicConstraints,
  type CertificateFields,
  createCertificate,
  createCrl,
  type Extension,
  keyUsage,
  subjectKeyIdentifier,
} from '../src/x509/write.ts'
import { codeOf } from './code-of.ts'

export type Member = 'root' | 'ca' | 'pck' | 'tcbSigner' | 'stranger'
const members: readonly Member[] = ['root', 'ca', 'pck', 'tcbSigner', 'stranger']
export const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const keys = Object.fromEntries([...members, 'attestation'].map((it) => [it, newKey()])) as Record<
  Member | 'attestation',
  { publicKey: KeyObject; privateKey: KeyObject }
>

export const now = Date.parse('2026-11-01T00:00:00Z')
const day = 86_400_000
export const at = (days: number): Date => new Date(now + days * day)

export interface CertificatePlan {
  name: string
  issuer: Member
  signer: Member
  serialNumber: bigint
  notBefore: Date
  notAfter: Date
  extensions: Extension[]
}

const member = (
  name: string,
  issuer: Member,
  serialNumber: bigint,
  extensions: Extension[] = [basicConstraints({ ca: false }), keyUsage('digitalSignature', 'nonRepudiation')],
): CertificatePlan => ({
  name,
  issuer,
  signer: issuer,
  serialNumber,
  notBefore: at(-365),
  notAfter: at(365),
  extensions,
})

const caExtensions = (pathLength: number) => [
  basicConstraints({ ca: true, pathLength }),
  keyUsage('keyCertSign', 'cRLSign'),
]

export const zeros = (size: number): string => '00'.repeat(size)

const freshPlan = () => {
  const pck = {
    ppid: Buffer.alloc(16, 0x11) as Buffer,
    svns: Array.from({ length: tcbComponentCount }, () => 5),
    pceSvn: 13,
    pceId: Buffer.alloc(2) as Buffer,
    fmspc: Buffer.from('00c101570e00', 'hex') as Buffer,
    instanceId: Buffer.alloc(16, 0x22) as Buffer | undefined,
  }
  const dates = { issueDate: '2026-10-15T00:00:00Z', nextUpdate: '2026-11-14T00:00:00Z' }
  const level = (svn: number, tcbStatus: string, advisoryIDs?: string[]) => ({
    tcb: { sgxtcbcomponents: Array.from({ length: tcbComponentCount }, () => ({ svn })), pcesvn: 13 },
    tcbDate: '2026-05-13T00:00:00Z',
    tcbStatus,
    ...(advisoryIDs && { advisoryIDs }),
  })
  return {
    keys: { ...keys },
    certificates: {
      root: member('Test SGX Root CA', 'root', 1n, caExtensions(1)),
      ca: member(pkiNames.platformCa, 'root', 2n, caExtensions(0)),
      pck: member(pkiNames.pck, 'ca', 3n),
      tcbSigner: member(pkiNames.tcbSigner, 'root', 4n),
      stranger: member('Stranger', 'stranger', 5n, caExtensions(1)),
    } as Record<Member, CertificatePlan>,
    pck,
    pckExtension: (identity: typeof pck): Buffer | undefined => pckExtension(identity),
    /** What the quote carries, and what the collateral's three headers do. */
    pckChain: ['pck', 'ca', 'root'] as Member[],
    caChain: ['ca', 'root'] as Member[],
    tcbInfoChain: ['tcbSigner', 'root'] as Member[],
    qeIdentityChain: ['tcbSigner', 'root'] as Member[],
    rootCrl: crlPlan('root'),
    pckCrl: crlPlan('ca'),
    tcbInfo: {
      id: 'SGX',
      version: 3,
      ...dates,
      fmspc: '00c101570e00',
      pceId: '0000',
      tcbType: 0,
      tcbEvaluationDataNumber: 19,
      tcbLevels: [level(5, 'UpToDate'), level(3, 'OutOfDate', ['INTEL-SA-00001'])] as unknown[],
    } as Record<string, unknown>,
    tcbInfoSigner: 'tcbSigner' as Member,
    qeIdentity: {
      id: 'QE',
      version: 2,
      ...dates,
      tcbEvaluationDataNumber: 19,
      miscselect: zeros(4),
      miscselectMask: 'ff'.repeat(4),
      attributes: `11${zeros(15)}`,
      attributesMask: `fb${'ff'.repeat(7)}${zeros(8)}`,
      mrsigner: 'aa'.repeat(32),
      isvprodid: 1,
      tcbLevels: [
        { tcb: { isvsvn: 8 }, tcbDate: '2026-05-13T00:00:00Z', tcbStatus: 'UpToDate' },
        {
          tcb: { isvsvn: 6 },
          tcbDate: '2025-05-13T00:00:00Z',
          tcbStatus: 'OutOfDate',
          advisoryIDs: ['INTEL-SA-00002'],
        },
        { tcb: { isvsvn: 4 }, tcbDate: '2024-05-13T00:00:00Z', tcbStatus: 'Revoked' },
      ] as unknown[],
    } as Record<string, unknown>,
    qeIdentitySigner: 'tcbSigner' as Member,
    report: reportPlan({ mrEnclave: '11'.repeat(32), mrSigner: '22'.repeat(32), flags: 0x05n }),
    qeReport: reportPlan({ mrEnclave: '99'.repeat(32), mrSigner: 'aa'.repeat(32), flags: 0x15n, productId: 1, svn: 8 }),
    qeReportSigner: 'pck' as Member,
    /** Undefined: what binds the key. */
    qeReportData: undefined as Buffer | undefined,
    qeAuthData: Buffer.alloc(32, 7) as Buffer,
    quoteSigner: 'attestation' as Member | 'attestation',
    certification: undefined as { type: number; data: Buffer } | undefined,
    collateralExtra: {} as Partial<QuoteCollateral>,
  }
}
export type Plan = ReturnType<typeof freshPlan>

function crlPlan(issuer: Member) {
  return {
    issuer,
    signer: issuer,
    thisUpdate: at(-10),
    nextUpdate: at(20),
    revoked: [] as bigint[],
    bytes: undefined as Buffer | undefined,
  }
}

function reportPlan(fields: { mrEnclave: string; mrSigner: string; flags: bigint; productId?: number; svn?: number }) {
  return {
    productId: 0,
    svn: 3,
    miscSelect: zeros(4),
    reportData: Buffer.alloc(64, 0x5a) as Buffer,
    xfrm: 3n,
    ...fields,
  }
}

export interface Forged {
  readonly quote: Buffer
  readonly collateral: QuoteCollateral
  readonly rootFingerprint: string
  /** DER of every member's certificate. */
  readonly certificates: Record<Member, Buffer>
}

export function forge(change: (plan: Plan) => void = () => {}): Forged {
  const plan = freshPlan()
  change(plan)
  const extension = plan.pckExtension(plan.pck)
  if (extension) plan.certificates.pck.extensions.push({ oid: pckOids.extension, critical: false, value: extension })
  const given = Object.fromEntries(
    members.map((it) => {
      const { name, issuer, signer, extensions, ...rest } = plan.certificates[it]
      const fields = {
        ...rest,
        subject: { CN: name },
        issuer: { CN: plan.certificates[issuer].name },
        publicKey: plan.keys[it].publicKey,
        extensions: [
          subjectKeyIdentifier(plan.keys[it].publicKey),
          authorityKeyIdentifier(plan.keys[signer].publicKey),
          ...extensions,
        ],
        signingKey: plan.keys[signer].privateKey,
      }
      return [it, issueOnce(`${it} ${signer}`, fields)]
    }),
  ) as Record<Member, { der: Buffer; pem: string }>
  const chain = (list: readonly Member[]): string => list.map((it) => given[it].pem).join('')
  const crl = (it: Plan['rootCrl']): string => {
    if (it.bytes) return it.bytes.toString('hex')
    const { der } = createCrl({
      issuer: { CN: plan.certificates[it.issuer].name },
      number: 1n,
      thisUpdate: it.thisUpdate,
      nextUpdate: it.nextUpdate,
      revoked: it.revoked.map((serialNumber) => ({ serialNumber, revokedAt: at(-5), reason: 'keyCompromise' })),
      signingKey: plan.keys[it.signer].privateKey,
    })
    return der.toString('hex')
  }
  const [tcbInfo, qeIdentity] = [JSON.stringify(plan.tcbInfo), JSON.stringify(plan.qeIdentity)]
  return {
    quote: writeQuote(plan, chain(plan.pckChain)),
    rootFingerprint: createHash('sha256').update(given.root.der).digest('hex'),
    certificates: Object.fromEntries(members.map((it) => [it, given[it].der])) as Record<Member, Buffer>,
    collateral: {
      pck_crl_issuer_chain: chain(plan.caChain),
      root_ca_crl: crl(plan.rootCrl),
      pck_crl: crl(plan.pckCrl),
      tcb_info_issuer_chain: chain(plan.tcbInfoChain),
      tcb_info: tcbInfo,
      tcb_info_signature: rawSignature(tcbInfo, plan.keys[plan.tcbInfoSigner].privateKey).toString('hex'),
      qe_identity_issuer_chain: chain(plan.qeIdentityChain),
      qe_identity: qeIdentity,
      qe_identity_signature: rawSignature(qeIdentity, plan.keys[plan.qeIdentitySigner].privateKey).toString('hex'),
      ...plan.collateralExtra,
    },
  }
}

/** The code for which a quote and collateral with this change are refused. */
export function refusalOf(
  change: (plan: Plan) => void,
  options: { readonly now?: number; readonly graceMs?: number } = {},
): string | undefined {
  const { quote, collateral, rootFingerprint } = forge(change)
  return codeOf(() => verifyQuote(quote, trustCollateral(collateral, rootFingerprint), { now, ...options }))
}

const issued = new Map<string, { der: Buffer; pem: string }>()
/** The same fields give the same certificate: signatures are random, and a root is known by its fingerprint. */
function issueOnce(who: string, fields: CertificateFields): { der: Buffer; pem: string } {
  const { publicKey: _, signingKey: __, serialNumber, ...plain } = fields
  const key = `${who} ${serialNumber} ${JSON.stringify(plain)}`
  const certificate = issued.get(key) ?? createCertificate(fields)
  issued.set(key, certificate)
  return certificate
}

function writeQuote(plan: Plan, pckChain: string): Buffer {
  const head = Buffer.alloc(quoteFields.qeAuthDataLength.offset)
  head.writeUInt16LE(3, quoteFields.version.offset)
  head.writeUInt16LE(2, quoteFields.attestationKeyType.offset)
  head.write(intelQeVendorId, quoteFields.qeVendorId.offset, 'hex')
  writeReport(plan.report).copy(head, quoteFields.report.offset)
  const point = publicPoint(plan.keys.attestation.publicKey)
  point.copy(head, quoteFields.attestationKey.offset)
  const bound = Buffer.alloc(64)
  createHash('sha256').update(point).update(plan.qeAuthData).digest().copy(bound)
  const qeReport = writeReport({ ...plan.qeReport, reportData: plan.qeReportData ?? bound })
  qeReport.copy(head, quoteFields.qeReport.offset)
  rawSignature(qeReport, plan.keys[plan.qeReportSigner].privateKey).copy(head, quoteFields.qeReportSignature.offset)
  rawSignature(head.subarray(0, quoteFields.signatureDataLength.offset), plan.keys[plan.quoteSigner].privateKey).copy(
    head,
    quoteFields.signature.offset,
  )
  const { type, data } = plan.certification ?? { type: 5, data: Buffer.from(`${pckChain}\0`) }
  const tail = Buffer.alloc(2 + plan.qeAuthData.length + 6)
  tail.writeUInt16LE(plan.qeAuthData.length, 0)
  plan.qeAuthData.copy(tail, 2)
  tail.writeUInt16LE(type, 2 + plan.qeAuthData.length)
  tail.writeUInt32LE(data.length, 4 + plan.qeAuthData.length)
  const quote = Buffer.concat([head, tail, data])
  quote.writeUInt32LE(quote.length - quoteFields.signature.offset, quoteFields.signatureDataLength.offset)
  return quote
}

function writeReport(plan: Plan['report']): Buffer {
  const report = Buffer.alloc(quoteFields.report.size)
  report.write(plan.miscSelect, reportFields.miscSelect.offset, 'hex')
  report.writeBigUInt64LE(plan.flags, reportFields.flags.offset)
  report.writeBigUInt64LE(plan.xfrm, reportFields.xfrm.offset)
  report.write(plan.mrEnclave, reportFields.mrEnclave.offset, 'hex')
  report.write(plan.mrSigner, reportFields.mrSigner.offset, 'hex')
  report.writeUInt16LE(plan.productId, reportFields.productId.offset)
  report.writeUInt16LE(plan.svn, reportFields.svn.offset)
  plan.reportData.copy(report, reportFields.reportData.offset)
  return report
}

function rawSignature(signed: Uint8Array | string, key: KeyObject): Buffer {
  return sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' })
}

function publicPoint(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' }).subarray(-64)
}

/** Definite lengths below 64 KiB. */
export function tlv(tag: number, ...content: Uint8Array[]): Buffer {
  const body = Buffer.concat(content)
  const length =
    body.length < 0x80
      ? [body.length]
      : body.length < 0x100
        ? [0x81, body.length]
        : [0x82, body.length >> 8, body.length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), body])
}

export function oid(text: string): Buffer {
  const [first, second, ...rest] = text.split('.').map(Number) as [number, number, ...number[]]
  const base128 = (value: number): number[] => {
    const digits = [value & 0x7f]
    for (let left = value >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80)
    return digits
  }
  return tlv(0x06, Buffer.from([first * 40 + second, ...rest.flatMap(base128)]))
}

const smallInteger = (value: number): Buffer =>
  tlv(0x02, Buffer.from(value < 0x80 ? [value] : value < 0x100 ? [0, value] : [value >> 8, value & 0xff]))

export function pckExtension(identity: Omit<Plan['pck'], 'instanceId'> & { instanceId: Buffer | undefined }): Buffer {
  const pair = (name: string, value: Buffer) => tlv(0x30, oid(name), value)
  return tlv(
    0x30,
    pair(pckOids.ppid, tlv(0x04, identity.ppid)),
    pair(
      pckOids.tcb,
      tlv(
        0x30,
        ...identity.svns.map((svn, index) => pair(tcbComponentOid(index + 1), smallInteger(svn))),
        pair(pckOids.pceSvn, smallInteger(identity.pceSvn)),
        pair(pckOids.cpuSvn, tlv(0x04, Buffer.from(identity.svns))),
      ),
    ),
    pair(pckOids.pceId, tlv(0x04, identity.pceId)),
    pair(pckOids.fmspc, tlv(0x04, identity.fmspc)),
    pair(pckOids.sgxType, tlv(0x0a, Buffer.from([1]))),
    ...(identity.instanceId ? [pair(pckOids.platformInstanceId, tlv(0x04, identity.instanceId))] : []),
  )
}
