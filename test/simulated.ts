/** A simulated authority in a directory of its own that goes away with the test file, and enclaves on it. */
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { openSimulatedPlatform, type SimulatedOptions } from '../src/attestation/platforms/simulated.ts'
import {
  openSimulatedAuthority,
  type PckCa,
  type SimulatedAuthority,
} from '../src/attestation/platforms/simulated-authority.ts'
import {
  collateralBundle,
  collateralTerms,
  issueCollateral,
} from '../src/attestation/platforms/simulated-collateral.ts'

export const testNow = new Date('2026-11-20T12:34:56Z')

export function scratchDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-test-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export function testAuthority(options: { seed?: number; directory?: string } = {}): Promise<SimulatedAuthority> {
  return openSimulatedAuthority({
    directory: options.directory ?? scratchDirectory(),
    now: () => testNow,
    secret: () => Buffer.alloc(32, options.seed ?? 1),
  })
}

/** MRENCLAVE of some code. */
export const codeDigest = (code: string): string => createHash('sha256').update(code).digest('hex')

export function testEnclave(authority: SimulatedAuthority, options: Partial<SimulatedOptions> = {}) {
  return openSimulatedPlatform({ authority, mrEnclave: codeDigest('cloister'), image: 'development', ...options })
}

export async function testCollateral(authority: SimulatedAuthority, now = testNow, ca: PckCa = 'platform') {
  return collateralBundle(issueCollateral(authority, await collateralTerms(authority, now)), ca)
}
