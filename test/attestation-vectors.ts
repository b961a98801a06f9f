/** Real quotes and collateral of Intel's PKI, gathered from other projects: read in place where `../shared/attestation-vectors` is. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AttestationErrorCode } from '../src/attestation/error.ts'
import { requires, sharedDirectory } from './requirements.ts'

export const vectors = requires('attestation-vectors')
export const vectorPath = (file: string): string => join(sharedDirectory, 'attestation-vectors', file)
export const readVector = (file: string): Buffer => readFileSync(vectorPath(file))
export const readVectorJson = (file: string): unknown =>
  vectors.available ? JSON.parse(readVector(file).toString()) : []

export interface Vector {
  readonly file: string
  readonly mrenclave: string
  readonly mrsigner: string
  readonly isvProdId: number
  readonly isvSvn: number
  readonly debug: boolean
  readonly reportData: string
  readonly fmspc: string
  readonly cases: readonly {
    readonly collateral: string
    readonly now: number
    readonly crlsValidAtNow: boolean
    readonly tcbEval: number
    readonly expected: { platform: string; qe: string; converged: string; advisoryIDs: string[] }
  }[]
}

/** Each quote with each collateral and time that it was tried with. */
export const positives = () =>
  (readVectorJson('vectors.json') as Vector[]).flatMap((vector) =>
    vector.cases.map((it) => ({ ...it, vector, quote: vector.file })),
  )

interface Negative {
  readonly name: string
  readonly quote: string
  readonly collateral: string
  readonly now: number
}
export const negatives = () => readVectorJson('negative.json') as Negative[]

/** What each case of negative.json is refused for; its `reason` is prose. */
export const negativeCodes: Readonly<Record<string, AttestationErrorCode>> = {
  'truncated-header': 'quote-truncated',
  'truncated-sig': 'quote-truncated',
  'siglen-too-small': 'quote-trailing-bytes',
  'trailing-bytes': 'quote-trailing-bytes',
  'version-2-epid': 'quote-epid-unsupported',
  'teetype-tdx': 'quote-tdx-unsupported',
  'mrenclave-flip': 'quote-signature-invalid',
  'debug-bit-set': 'quote-signature-invalid',
  'quote-sig-zero': 'quote-signature-invalid',
  'attkey-zero': 'attestation-key-invalid',
  'qe-report-sig-flip': 'qe-report-signature-invalid',
  'certtype-6': 'quote-certification-unsupported',
  // The flipped byte lies in the issuer's name, which is compared before the signature.
  'pck-leaf-flip': 'chain-broken',
  'tcb-sig-flip': 'tcb-info-signature-invalid',
  'tcb-json-respaced': 'tcb-info-signature-invalid',
  'qe-identity-sig-flip': 'qe-identity-signature-invalid',
  'collateral-expired': 'crl-expired',
  'crl-garbage': 'crl-unreadable',
  'crl-wrong-ca': 'crl-issuer-wrong',
  'crl-older-expired': 'crl-expired',
}
