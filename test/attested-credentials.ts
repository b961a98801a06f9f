/** RA-TLS credentials of simulated enclaves, and two of them meeting on a TLS connection as the transport lets them meet. */
import { createHash } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import type { SimulatedOptions } from '../src/attestation/platforms/simulated.ts'
import type { SimulatedAuthority } from '../src/attestation/platforms/simulated-authority.ts'
import type { AttestedPeer } from '../src/attestation/policy.ts'
import { type Policy, parsePolicy } from '../src/attestation/policy-format.ts'
import { MonotonicClock } from '../src/attestation/validity.ts'
import { publicError } from '../src/errors.ts'
import { AttestedCredentials, type AttestedCredentialsOptions } from '../src/ratls/credentials.ts'
import { testCollateral, testEnclave, testNow } from './simulated.ts'
import { shownBy, type TlsPair } from './tls-pair.ts'

export const jobDigest = createHash('sha256').update('the job').digest()

export function testPolicy(authority: SimulatedAuthority, changes: Partial<Policy> = {}): Policy {
  return parsePolicy({
    version: 1,
    root: { name: 'simulated', sha256: createHash('sha256').update(authority.certificates.root.der).digest('hex') },
    enclave: { mrEnclave: ['self'] },
    attributes: { allowDebug: false, allowProvisioningKeys: false },
    tcb: { acceptedStatuses: ['UpToDate'], acceptedAdvisories: [], minimumEvaluationNumber: 18 },
    collateral: { graceHours: 0 },
    platforms: 'any',
    freshness: { maximumAgeMinutes: 60 },
    ...changes,
  })
}

export async function testCredentials(
  authority: SimulatedAuthority,
  role: 'server' | 'worker',
  options: Partial<AttestedCredentialsOptions> & { enclave?: Partial<SimulatedOptions> } = {},
): Promise<AttestedCredentials> {
  const { enclave, ...rest } = options
  const collateral = await testCollateral(authority)
  return AttestedCredentials.create({
    platform: await testEnclave(authority, enclave),
    role,
    policy: testPolicy(authority),
    collateral: { collateralFor: async () => collateral },
    clock: new MonotonicClock(() => testNow.getTime()),
    jobDigest,
    report: () => {},
    ...rest,
  })
}

export type Outcome = { readonly peer: AttestedPeer } | { readonly refused: string; readonly error: unknown }

const never = new AbortController().signal

/** One side as the transport runs it: authenticate, then speak the application; destroy if refused. */
export async function meet(
  socket: TLSSocket,
  credentials: AttestedCredentials,
  side: 'client' | 'server',
  application = 'application',
): Promise<Outcome> {
  try {
    const certificate = socket.getPeerX509Certificate()
    if (certificate === undefined) throw new Error('no certificate')
    const identity = shownBy.get(socket) ?? credentials.identity()
    const peer = await credentials.authenticate({ socket, certificate, side, identity }, never)
    socket.write(application)
    return { peer }
  } catch (error) {
    socket.destroy()
    return { refused: publicError(error).code, error }
  }
}

export function meetBoth(pair: TlsPair, server: AttestedCredentials, client: AttestedCredentials): Promise<Outcome[]> {
  return Promise.all([meet(pair.server, server, 'server'), meet(pair.client, client, 'client')])
}
