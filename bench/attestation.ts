// SPDX-License-Identifier: Apache-2.0
/**
 * What attestation costs, in CPU ms. Verification of one SGX quote, beside the Rust verifier of PyPI's dcap-qvl in the same run:
 *
 * - warm: the quote, against collateral that was verified before: what a peer costs a server (goal: at most 0.5 ms);
 * - full: collateral and quote, every signature over CRLs, TCB info, QE identity and quote checked anew but the
 *   quoting enclave's report, which is the same in each quote. Certificates and texts that this
 *   process has seen before are not parsed again (goal: not slower than Rust, which remembers nothing);
 * - new platform: everything but root, PCK CA and TCB signer, which Intel has few of, is seen for the first time;
 * - new PKI: everything is, keys and all.
 *
 * Then the RA-TLS handshake beside plain mutual TLS (attestation/handshakes.ts; goal: at most twice).
 *
 *     npm run bench -- attestation [--python PYTHON] [--vectors DIRECTORY] [--rounds 7] [--handshakes 200]
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { parseCollateral } from '../src/attestation/collateral.ts'
import { intelRootFingerprint } from '../src/attestation/format.ts'
import { trustCollateral, verifyQuote } from '../src/attestation/verify.ts'
import { forge, now as forgedNow, newKey } from '../test/attestation-pki.ts'
import { python, sharedDirectory } from '../test/requirements.ts'
import { type HandshakeFigures, measureHandshakes } from './attestation/handshakes.ts'
import { median, table } from './statistics.ts'

const { values } = parseArgs({
  options: {
    python: { type: 'string', default: python },
    vectors: { type: 'string', default: join(sharedDirectory, 'attestation-vectors') },
    rounds: { type: 'string', default: '7' },
    handshakes: { type: 'string', default: '200' },
  },
})
const rounds = Number(values.rounds)
/** Rounds of the compiler's. */
const warmUps = 20
const cases = [
  {
    name: 'platform CA, 44 revocations',
    quote: 'automata-attestation/quotev3.bin',
    collateral: 'automata-attestation/quotev3.case3.collateral.json',
    now: 1756530546,
  },
  {
    name: 'processor CA, none',
    quote: 'phala/sgx_quote.bin',
    collateral: 'phala/sgx_quote.case1.collateral.json',
    now: 1751624924,
  },
]
const read = (file: string): Buffer => readFileSync(join(values.vectors, file))

function cpuMs(runs: number, body: (run: number) => unknown): number {
  const before = process.cpuUsage()
  for (let run = 0; run < runs; run++) body(run)
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000 / runs
}

function rustMs(quote: string, collateral: string, now: number): number | undefined {
  const files = [quote, collateral].map((file) => join(values.vectors, file))
  const script = join(import.meta.dirname, 'peers/dcap_qvl.py')
  const { status, stdout } = spawnSync(values.python, [script, ...files, `${now}`, '300'], { encoding: 'utf8' })
  return status === 0 ? (JSON.parse(stdout) as { cpuMs: number }).cpuMs : undefined
}

/** Of platforms never seen before, made anew for each round. */
const coldRuns = 40
let strangers = 1000
function coldMs(change: NonNullable<Parameters<typeof forge>[0]>): number {
  const round = (): number => {
    const forged = Array.from({ length: coldRuns }, () =>
      forge((plan) => {
        strangers++
        plan.certificates.pck.serialNumber = BigInt(strangers)
        plan.keys.pck = newKey()
        plan.keys.attestation = newKey()
        plan.tcbInfo.tcbEvaluationDataNumber = strangers
        plan.qeIdentity.tcbEvaluationDataNumber = strangers
        change(plan)
      }),
    )
    return cpuMs(coldRuns, (run) => {
      const { quote, collateral, rootFingerprint } = forged[run]!
      verifyQuote(quote, trustCollateral(collateral, rootFingerprint), { now: forgedNow })
    })
  }
  return median(Array.from({ length: rounds + warmUps }, round).slice(warmUps))
}

const rows: string[][] = []
for (const { name, quote, collateral, now } of cases) {
  const bytes = read(quote)
  const bundle = parseCollateral(JSON.parse(read(collateral).toString()))
  const trusted = trustCollateral(bundle, intelRootFingerprint)
  const options = { now: now * 1000 }
  const warm = () => verifyQuote(bytes, trusted, options)
  const full = () => verifyQuote(bytes, trustCollateral(bundle, intelRootFingerprint), options)
  cpuMs(2000, warm)
  cpuMs(1000, full)
  const measured = Array.from({ length: rounds }, () => ({
    warm: cpuMs(300, warm),
    full: cpuMs(300, full),
    rust: rustMs(quote, collateral, now),
  }))
  const ours = (key: 'warm' | 'full') => median(measured.map((it) => it[key]))
  const theirs = measured.flatMap((it) => it.rust ?? [])
  // Ratios are of runs that followed each other.
  const ratio = median(measured.flatMap((it) => (it.rust === undefined ? [] : it.full / it.rust)))
  rows.push([
    name,
    ours('warm').toFixed(3),
    ours('full').toFixed(3),
    theirs.length > 0 ? median(theirs).toFixed(3) : 'absent',
    theirs.length > 0 ? ratio.toFixed(2) : '',
  ])
}
console.log(`Verification of an SGX quote, CPU ms, median of ${rounds} rounds`)
table(['collateral', 'warm', 'full', 'Rust full', 'full/Rust'], rows)
console.log(`full, of a new platform: ${coldMs(() => {}).toFixed(3)}`)
const newPki = coldMs((plan) => {
  for (const member of ['root', 'ca', 'tcbSigner'] as const) plan.keys[member] = newKey()
})
console.log(`full, of a new PKI: ${newPki.toFixed(3)}`)

const { again, renewed, first } = await measureHandshakes(rounds, Number(values.handshakes))
const row = (name: string, { plainMs, attestedMs, ratio }: HandshakeFigures): string[] => [
  name,
  plainMs.toFixed(2),
  attestedMs.toFixed(2),
  ratio.toFixed(2),
]
console.log(`\nHandshake, both ends, without making quotes, CPU ms, median of ${rounds} × ${values.handshakes}`)
table(
  ['peers', 'mutual TLS', 'RA-TLS', 'RA-TLS/TLS'],
  [
    row('that met before', again),
    row('that met before, own certificates renewed', renewed),
    row('never seen before', first),
  ],
)
