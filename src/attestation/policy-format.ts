// SPDX-License-Identifier: Apache-2.0
/**
 * Policies as data: which proven evidence is wanted, written so that two people can read and compare it. There are no defaults: what is
 * not written down is not accepted, an unknown field is refused with its path, and each weakness that is allowed stands in
 * the file by name. The policy is part of the job that all parties agree on, so the host cannot change it unnoticed.
 */
import { createHash } from 'node:crypto'
import * as v from 'valibot'
import { CodedError, type PublicError } from '../errors.ts'
import { X509Error } from '../x509/der.ts'
import { splitPem } from '../x509/pem.ts'
import { intelRootFingerprint } from './format.ts'
import { type TcbStatus, tcbStatuses } from './tcb.ts'
import type { ValidityProblem } from './validity.ts'

const hexOf = (bytes: number, what: string) =>
  v.pipe(
    v.string(),
    v.regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`), `expected ${what}: ${bytes} bytes in lower-case hex`),
  )
const whole = (maximum: number) => v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(maximum))
const nonEmpty = <Item extends v.GenericSchema>(item: Item) =>
  v.pipe(v.array(item), v.minLength(1, 'expected at least one'))

const namedRoot = {
  /** Shown wherever the root is; a root that is not Intel's must not be called so. */
  name: v.pipe(v.string(), v.regex(/^(?!intel$)[a-z0-9-]{1,64}$/i, 'expected a name other than "intel"')),
}
const root = v.union(
  [
    v.literal('intel'),
    v.strictObject({ ...namedRoot, sha256: hexOf(32, 'the fingerprint of a root certificate') }),
    v.strictObject({ ...namedRoot, pem: v.string() }),
  ],
  'expected "intel", {name, sha256} or {name, pem}',
)

const fields = v.strictObject({
  version: v.literal(1, 'expected 1'),
  root,
  enclave: v.strictObject({
    /** `self`: the code that judges. Any one of the list will do. */
    mrEnclave: v.exactOptional(
      nonEmpty(
        v.union([v.literal('self'), hexOf(32, 'an MRENCLAVE')], 'expected "self" or an MRENCLAVE in lower-case hex'),
      ),
    ),
    /** A signer signs many programs in many versions: without product and version it says little. */
    signer: v.exactOptional(
      v.strictObject({ mrSigner: hexOf(32, 'an MRSIGNER'), productId: whole(0xffff), minimumSvn: whole(0xffff) }),
    ),
  }),
  attributes: v.strictObject({
    /** The host reads the memory of a debug enclave. */
    allowDebug: v.boolean(),
    /** An enclave with the provisioning or launch key can identify the platform beyond what it is asked. */
    allowProvisioningKeys: v.boolean(),
  }),
  tcb: v.strictObject({
    acceptedStatuses: nonEmpty(
      v.picklist(tcbStatuses.filter((status): status is Exclude<TcbStatus, 'Revoked'> => status !== 'Revoked')),
    ),
    /** Advisories that apply to an accepted platform, each accepted by name, or all. */
    acceptedAdvisories: v.union(
      [
        v.literal('any'),
        v.array(v.pipe(v.string(), v.regex(/^INTEL-[A-Z]+-\d+$/, 'expected an advisory such as INTEL-SA-00615'))),
      ],
      'expected "any" or a list of advisories',
    ),
    /** Evaluation of Intel's that TCB info and QE identity must not be older than. */
    minimumEvaluationNumber: whole(0xffff_ffff),
  }),
  collateral: v.strictObject({
    /** How long CRLs, TCB info and QE identity are still taken after Intel should have replaced them. */
    graceHours: whole(24 * 365),
  }),
  /** Machines that may take part, by what their PCK certificates say; a stolen PCK of another machine is then worth nothing. */
  platforms: v.union(
    [
      v.literal('any'),
      nonEmpty(
        v.union(
          [
            v.strictObject({ ppid: hexOf(16, 'a PPID') }),
            v.strictObject({ instanceId: hexOf(16, 'a platform instance id') }),
          ],
          'expected {ppid} or {instanceId}',
        ),
      ),
    ],
    'expected "any" or a list of {ppid} or {instanceId}',
  ),
  freshness: v.strictObject({
    /** Evidence that was verified longer ago must be verified anew, against the collateral of then. */
    maximumAgeMinutes: v.pipe(whole(60 * 24 * 365), v.minValue(1)),
  }),
})

export type Policy = Readonly<v.InferOutput<typeof fields>>
/** For the JSON Schema that is exported with the job's. */
export const policySchema = v.pipe(
  fields,
  v.forward(
    v.check(
      ({ enclave }) => enclave.mrEnclave !== undefined || enclave.signer !== undefined,
      'expected mrEnclave, signer or both: a policy that accepts any code is none',
    ),
    ['enclave'],
  ),
)

export type PolicyErrorCode = 'policy-unset' | 'policy-malformed' | 'policy-refused'

export type MismatchCode =
  | 'root-unwanted'
  | 'measurement-mismatch'
  | 'signer-mismatch'
  | 'product-mismatch'
  | 'svn-too-low'
  | 'enclave-uninitialized'
  | 'enclave-not-64-bit'
  | 'debug-enclave'
  | 'provisioning-key'
  | 'tcb-status-unaccepted'
  | 'advisory-unaccepted'
  | 'tcb-evaluation-too-low'
  | 'platform-not-pinned'
  | 'evidence-stale'
  | 'evidence-from-future'

export interface Mismatch extends PublicError {
  readonly code: MismatchCode | ValidityProblem['code']
}

/** Evidence was proven, and is unwanted: `reasons` has every mismatch, the message the first. */
export class PolicyError extends CodedError<PolicyErrorCode> {
  readonly reasons: readonly Mismatch[]

  constructor(
    code: PolicyErrorCode,
    message: string,
    options: { hint: string; cause?: unknown; reasons?: readonly Mismatch[] },
  ) {
    super(code, message, options)
    this.reasons = options.reasons ?? []
  }
}

/** From parsed JSON. */
export function parsePolicy(value: unknown): Policy {
  if (value === undefined || value === null) {
    throw new PolicyError('policy-unset', 'Expected a policy, got none.', {
      hint: 'Write one with cloister policy init: without a policy nobody is let in.',
    })
  }
  const result = v.safeParse(policySchema, value)
  if (!result.success) {
    const issues = result.issues.map((issue) => `${v.getDotPath(issue) ?? 'the policy'}: ${issue.message}`)
    throw new PolicyError('policy-malformed', `Policy: ${issues.join('; ')}.`, {
      hint: 'cloister policy check FILE says what is wrong; cloister policy init writes a policy to start from.',
    })
  }
  rootFingerprintOf(result.output)
  return result.output
}

/** The root that quotes and collateral must chain to under this policy: the first argument of all verification. */
export function rootFingerprintOf({ root }: Policy): string {
  if (root === 'intel') return intelRootFingerprint
  const fingerprint = 'sha256' in root ? root.sha256 : fingerprintOfPem(root.pem)
  if (fingerprint !== intelRootFingerprint) return fingerprint
  throw new PolicyError(
    'policy-malformed',
    `Policy: root: expected another root than Intel's under the name "${root.name}".`,
    {
      hint: 'Write "root": "intel" to trust Intel.',
    },
  )
}

export const rootNameOf = ({ root }: Policy): string => (root === 'intel' ? root : root.name)

function fingerprintOfPem(pem: string): string {
  try {
    const [der, ...rest] = splitPem(pem)
    if (rest.length === 0) return createHash('sha256').update(der!).digest('hex')
  } catch (cause) {
    if (!(cause instanceof X509Error)) throw cause
  }
  throw new PolicyError('policy-malformed', 'Policy: root.pem: expected one certificate in PEM, got something else.', {
    hint: 'Put the root certificate there with "\\n" for each line end, or its SHA-256 fingerprint as root.sha256.',
  })
}
