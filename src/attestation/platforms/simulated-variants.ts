// SPDX-License-Identifier: Apache-2.0
/**
 * What a simulated platform can have wrong with it, on demand. Some variants change the quotes of a machine, some what the
 * authority says to everyone; the latter can be switched during a job, so that a peer falls out of policy while it works.
 */
import { PlatformError } from './platform.ts'

/** Variants by which the PCK certificate of a machine states an older TCB. */
export const tcbVariants = {
  'sw-hardening-needed': 'SWHardeningNeeded',
  'configuration-needed': 'ConfigurationNeeded',
  'configuration-and-sw-hardening-needed': 'ConfigurationAndSWHardeningNeeded',
  'out-of-date': 'OutOfDate',
  'out-of-date-configuration-needed': 'OutOfDateConfigurationNeeded',
  'tcb-revoked': 'Revoked',
} as const

const machineVariants = [
  'up-to-date',
  ...(Object.keys(tcbVariants) as (keyof typeof tcbVariants)[]),
  'qe-out-of-date',
  'qe-revoked',
  'debug',
  /** The PCK CRL lists the machine's certificates: certificates that are out already stop counting. */
  'revoked-pck',
] as const

const authorityVariants = [
  'revoked-ca',
  'revoked-tcb-signer',
  'expired-collateral',
  /** A newer TCB evaluation, by which what was up to date is out of date. */
  'tcb-recovery',
] as const

export type MachineVariant = (typeof machineVariants)[number]
export type AuthorityVariant = (typeof authorityVariants)[number]

export interface Variants {
  readonly authority: ReadonlySet<AuthorityVariant>
  ofMachine(name: string): ReadonlySet<MachineVariant>
}

/** Each entry is a variant; a machine's variant may name its machine, `out-of-date@hospital-b`, and else holds for all. */
export function parseVariants(entries: readonly string[]): Variants {
  const authority = new Set<AuthorityVariant>()
  const machine: { variant: MachineVariant; name: string | undefined }[] = []
  for (const entry of entries) {
    const [variant, name, ...rest] = entry.split('@')
    if (isOneOf(authorityVariants, variant) && name === undefined) authority.add(variant)
    else if (isOneOf(machineVariants, variant) && name !== '' && rest.length === 0) machine.push({ variant, name })
    else throw unknownVariant(entry)
  }
  return {
    authority,
    ofMachine: (name) =>
      new Set(machine.filter((one) => one.name === undefined || one.name === name).map(({ variant }) => variant)),
  }
}

function isOneOf<T extends string>(list: readonly T[], value: string | undefined): value is T {
  return list.some((one) => one === value)
}

function unknownVariant(entry: string): PlatformError {
  return new PlatformError(
    'platform-variant-unknown',
    `expected a variant, or a variant of one machine as variant@machine, got ${JSON.stringify(entry)}`,
    { hint: `Variants of machines: ${machineVariants.join(', ')}. Of the authority: ${authorityVariants.join(', ')}.` },
  )
}
