// SPDX-License-Identifier: Apache-2.0
/** PCK certificates of simulated machines: Intel's "PCK Certificate and CRL Profile", with the SGX extension 1.2.840.113741.1.13.1. */
import {
  type BaseBlock,
  Boolean as BooleanBlock,
  Enumerated,
  Integer,
  ObjectIdentifier,
  OctetString,
  Sequence,
} from 'asn1js'
import { basicConstraints, createCertificate, type Encoded, type Extension, keyUsage } from '../../x509/write.ts'
import { pckOids, pkiNames, tcbComponentOid } from '../format.ts'
import {
  caMember,
  intelName,
  pkiExtensions,
  type SimulatedAuthority,
  type SimulatedMachine,
} from './simulated-authority.ts'
import { simulatedFmspc, simulatedPceId, type TcbLevel, tcbLevels } from './simulated-tcb.ts'

const validForMs = 7 * 365 * 86_400_000

/** The certificate of a machine's PCK key for one TCB level: Intel issues one for each. */
export function issuePckCertificate(
  authority: SimulatedAuthority,
  machine: SimulatedMachine,
  level: TcbLevel,
): Encoded {
  const { publicKey } = pckKeys(authority, machine)
  const issuer = authority.keys(caMember(machine.ca))
  const own = [
    keyUsage('digitalSignature', 'nonRepudiation'),
    basicConstraints({ ca: false }),
    sgxExtension(authority, machine, level),
  ]
  return createCertificate({
    serialNumber: pckSerialNumber(authority, machine, level),
    issuer: intelName(machine.ca === 'platform' ? pkiNames.platformCa : pkiNames.processorCa),
    subject: intelName(pkiNames.pck),
    notBefore: authority.createdAt,
    notAfter: new Date(authority.createdAt.getTime() + validForMs),
    publicKey,
    extensions: pkiExtensions(publicKey, issuer.publicKey, own),
    signingKey: issuer.privateKey,
  })
}

export function pckKeys(authority: SimulatedAuthority, machine: SimulatedMachine) {
  return authority.deriveKeys(`PCK of ${machine.name}`)
}

/** What a CRL lists when a machine is revoked: all its certificates. */
export function pckSerialNumbers(authority: SimulatedAuthority, machine: SimulatedMachine): bigint[] {
  return tcbLevels.map((level) => pckSerialNumber(authority, machine, level))
}

function pckSerialNumber(authority: SimulatedAuthority, machine: SimulatedMachine, level: TcbLevel): bigint {
  return authority.deriveSerialNumber(`serial number of PCK of ${machine.name} (${machine.ca}) at ${level.status}`)
}

function sgxExtension(authority: SimulatedAuthority, { name, ca }: SimulatedMachine, level: TcbLevel): Extension {
  const onPlatform: [string, BaseBlock][] = [
    [pckOids.platformInstanceId, octets(authority.deriveBytes(`instance ID of ${name}`, 16))],
    [
      pckOids.configuration,
      pairs([
        [pckOids.dynamicPlatform, new BooleanBlock({ value: true })],
        [pckOids.cachedKeys, new BooleanBlock({ value: true })],
        [pckOids.smtEnabled, new BooleanBlock({ value: true })],
      ]),
    ],
  ]
  const components = level.components.map((svn, index): [string, BaseBlock] => [
    tcbComponentOid(index + 1),
    new Integer({ value: svn }),
  ])
  const value = pairs([
    [pckOids.ppid, octets(authority.deriveBytes(`PPID of ${name}`, 16))],
    [
      pckOids.tcb,
      pairs([
        ...components,
        [pckOids.pceSvn, new Integer({ value: level.pceSvn })],
        [pckOids.cpuSvn, octets(Uint8Array.from(level.components))],
      ]),
    ],
    [pckOids.pceId, octets(Buffer.from(simulatedPceId, 'hex'))],
    [pckOids.fmspc, octets(Buffer.from(simulatedFmspc, 'hex'))],
    // Standard on a processor, Scalable where there is a platform.
    [pckOids.sgxType, new Enumerated({ value: ca === 'platform' ? 1 : 0 })],
    ...(ca === 'platform' ? onPlatform : []),
  ])
  return { oid: pckOids.extension, critical: false, value: Buffer.from(value.toBER()) }
}

function pairs(list: readonly [string, BaseBlock][]): Sequence {
  return new Sequence({
    value: list.map(([oid, value]) => new Sequence({ value: [new ObjectIdentifier({ value: oid }), value] })),
  })
}

function octets(bytes: Uint8Array): OctetString {
  return new OctetString({ valueHex: Uint8Array.from(bytes).buffer })
}
