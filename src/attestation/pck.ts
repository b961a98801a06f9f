// SPDX-License-Identifier: Apache-2.0
/**
 * The SGX extension of a PCK certificate (Intel "SGX PCK Certificate and CRL Profile", section 5): which platform this is and
 * which TCB its certificate was issued for. Levels are matched against these SVNs, never against the report's CPUSVN: Intel
 * signed these. Only a certificate whose chain was verified says anything.
 */
import { type Der, derChildren, derOctets, derOid, derSmallInteger, derTags, readDer, X509Error } from '../x509/der.ts'
import type { Certificate } from '../x509/read.ts'
import { AttestationError } from './error.ts'
import { pckOids, sgxTypes, tcbComponentCount, tcbComponentOid } from './format.ts'

export interface PckIdentity {
  /** Hex, as all identifiers here. */
  readonly ppid: string
  readonly componentSvns: readonly number[]
  readonly pceSvn: number
  readonly cpuSvn: string
  readonly pceId: string
  readonly fmspc: string
  readonly sgxType: (typeof sgxTypes)[number]
  /** Only platforms with several packages (Platform CA) have one. */
  readonly platformInstanceId: string | undefined
}

export function parsePckIdentity(certificate: Certificate): PckIdentity {
  const extension = certificate.extensions.get(pckOids.extension)
  if (!extension) throw malformed('the SGX extension', 'a certificate without it')
  try {
    const fields = readPairs(readDer(extension.value))
    const tcb = readPairs(required(fields, pckOids.tcb))
    const sgxType = sgxTypes[derSmallInteger(required(fields, pckOids.sgxType), 0xff, derTags.enumerated)]
    if (!sgxType) throw malformed('a known SGX type', 'another')
    return {
      ppid: hexOctets(fields, pckOids.ppid, 16),
      componentSvns: Array.from({ length: tcbComponentCount }, (_, index) =>
        derSmallInteger(required(tcb, tcbComponentOid(index + 1)), 0xff),
      ),
      pceSvn: derSmallInteger(required(tcb, pckOids.pceSvn), 0xffff),
      cpuSvn: hexOctets(tcb, pckOids.cpuSvn, 16),
      pceId: hexOctets(fields, pckOids.pceId, 2),
      fmspc: hexOctets(fields, pckOids.fmspc, 6),
      sgxType,
      platformInstanceId: fields.has(pckOids.platformInstanceId)
        ? hexOctets(fields, pckOids.platformInstanceId, 16)
        : undefined,
    }
  } catch (cause) {
    if (!(cause instanceof X509Error)) throw cause
    throw malformed('the SGX extension in DER', cause.message, cause)
  }
}

/** SEQUENCE OF SEQUENCE { OID, value }; an OID that comes twice could be read two ways. */
function readPairs(list: Der): Map<string, Der> {
  const pairs = new Map<string, Der>()
  for (const pair of derChildren(list, derTags.sequence)) {
    const [oid, value, ...rest] = derChildren(pair, derTags.sequence)
    if (!oid || !value || rest.length > 0) throw malformed('pairs of OID and value', 'another number of elements')
    const name = derOid(oid)
    if (pairs.has(name)) throw malformed('each OID once', `${name} twice`)
    pairs.set(name, value)
  }
  return pairs
}

function required(pairs: Map<string, Der>, oid: string): Der {
  const value = pairs.get(oid)
  if (!value) throw malformed(`a value for ${oid}`, 'none')
  return value
}

const hexOctets = (pairs: Map<string, Der>, oid: string, size: number): string =>
  derOctets(required(pairs, oid), size).toString('hex')

function malformed(expected: string, got: string, cause?: unknown): AttestationError {
  return new AttestationError('pck-malformed', `PCK certificate: expected ${expected}, got ${got}.`, {
    hint: 'Use the PCK certificate that Intel issued for this platform, unchanged.',
    ...(cause === undefined ? {} : { cause }),
  })
}
