import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Forged, forge, now, type Plan } from '../../test/attestation-pki.ts'
import { python, requires, sharedDirectory } from '../../test/requirements.ts'
import { parseCollateral, type QuoteCollateral } from './collateral.ts'
import { intelRootFingerprint } from './format.ts'
import { examineQuote, trustCollateral } from './verify.ts'

/**
 * Other verifiers as oracles: npm's @phala/dcap-qvl 0.3.9 (JavaScript) and PyPI's dcap-qvl 0.7.0 (Rust). They differ from us and from each other
 * where attestation-facts §2 says: there they are not asked. Never used at run time.
 */
interface Question {
  readonly quote: Uint8Array
  readonly collateral: QuoteCollateral
  /** DER of the root in place of Intel's. */
  readonly root?: Uint8Array
  readonly nowMs: number
}
interface Answer {
  readonly status: string
  readonly advisories: readonly string[]
}
const answer = (status: string, advisories: readonly string[]): Answer => ({
  status,
  advisories: [...advisories].sort(),
})

function ours({ quote, collateral, nowMs }: Question, rootFingerprint: string): Answer {
  const evidence = examineQuote(quote, trustCollateral(collateral, rootFingerprint), nowMs)
  return answer(evidence.tcbStatus, evidence.advisories)
}

interface JavaScriptVerifier {
  verify(quote: Uint8Array, collateral: unknown, nowSeconds: number): { status: string; advisory_ids: string[] }
}

async function javaScript({ quote, collateral, root, nowMs }: Question): Promise<Answer> {
  // Its published types say less than its code.
  const library = (await import('@phala/dcap-qvl')) as unknown as {
    QuoteVerifier: { newProd(): JavaScriptVerifier; newWithRootCa(der: Uint8Array): JavaScriptVerifier }
  }
  const { QuoteVerifier } = library
  const verifier = root ? QuoteVerifier.newWithRootCa(root) : QuoteVerifier.newProd()
  const bytes = (hex: string) => Buffer.from(hex, 'hex')
  const given = {
    ...collateral,
    root_ca_crl: bytes(collateral.root_ca_crl),
    pck_crl: bytes(collateral.pck_crl),
    tcb_info_signature: bytes(collateral.tcb_info_signature),
    qe_identity_signature: bytes(collateral.qe_identity_signature),
  }
  const { status, advisory_ids } = verifier.verify(quote, given, nowMs / 1000)
  return answer(status, advisory_ids)
}

const script = `
import dcap_qvl, json, sys
for line in sys.stdin:
    it = json.loads(line)
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(it["collateral"]))
    quote, now = bytes.fromhex(it["quote"]), it["now"]
    try:
        result = dcap_qvl.verify_with_root_ca(quote, collateral, bytes.fromhex(it["root"]), now) if it["root"] else dcap_qvl.verify(quote, collateral, now)
        print(json.dumps({"status": result.status, "advisories": sorted(result.advisory_ids)}))
    except Exception as error:
        print(json.dumps({"status": "refused", "advisories": [], "error": str(error)}))
`
function rust(questions: readonly Question[]): (Answer & { error?: string })[] {
  const input = questions
    .map(({ quote, collateral, root, nowMs }) =>
      JSON.stringify({
        quote: Buffer.from(quote).toString('hex'),
        collateral,
        root: root ? Buffer.from(root).toString('hex') : '',
        now: nowMs / 1000,
      }),
    )
    .join('\n')
  const { stdout, stderr, status } = spawnSync(python, ['-c', script], { input, encoding: 'utf8', maxBuffer: 1e8 })
  expect(status, stderr).toBe(0)
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Answer)
}

const vectors = requires('attestation-vectors')
const read = (file: string) => readFileSync(join(sharedDirectory, 'attestation-vectors', file))

function realQuestions(): Question[] {
  interface Vector {
    file: string
    debug: boolean
    cases: { collateral: string; now: number; crlsValidAtNow: boolean; tcbInfoVersion: number }[]
  }
  return (JSON.parse(read('vectors.json').toString()) as Vector[]).flatMap((vector) =>
    vector.cases
      // Both refuse debug enclaves and know no TCB info of version 2.
      .filter((it) => !vector.debug && it.crlsValidAtNow && it.tcbInfoVersion === 3)
      .map((it) => ({
        quote: read(vector.file),
        collateral: parseCollateral(JSON.parse(read(it.collateral).toString())),
        nowMs: it.now * 1000,
      })),
  )
}

const statuses = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
] as const

/** Platforms at random levels of random TCB info. A last level that fits all, since nobody says alike what fits none. */
const randomPlatform = fc
  .record({
    svns: fc.array(fc.nat(2), { minLength: 16, maxLength: 16 }),
    pceSvn: fc.integer({ min: 11, max: 13 }),
    levels: fc.array(
      fc.record({
        svns: fc.array(fc.nat(1), { minLength: 16, maxLength: 16 }),
        pceSvn: fc.integer({ min: 11, max: 13 }),
        status: fc.constantFrom(...statuses),
        advisories: fc.subarray(['INTEL-SA-00001', 'INTEL-SA-00002', 'INTEL-SA-00003']),
      }),
      { maxLength: 5 },
    ),
    last: fc.constantFrom(...statuses),
    qeSvn: fc.constantFrom(9, 8, 7, 6),
  })
  .map(({ svns, pceSvn, levels, last, qeSvn }) => (plan: Plan): void => {
    Object.assign(plan.pck, { svns, pceSvn })
    plan.qeReport.svn = qeSvn
    // As Intel sorts them: the Rust verifier sorts levels that are not.
    const order = (level: (typeof levels)[number]) => `${level.svns.join('')} ${level.pceSvn}`
    const sorted = levels.toSorted((a, b) => (order(a) < order(b) ? 1 : -1))
    const list = [...sorted, { svns: Array<number>(16).fill(0), pceSvn: 0, status: last, advisories: [] }]
    plan.tcbInfo.tcbLevels = list.map((level) => ({
      tcb: { sgxtcbcomponents: level.svns.map((svn) => ({ svn })), pcesvn: level.pceSvn },
      tcbDate: '2026-05-13T00:00:00Z',
      tcbStatus: level.status,
      ...(level.advisories.length > 0 && { advisoryIDs: level.advisories }),
    }))
  })
const question = ({ quote, collateral, certificates }: Forged): Question => ({
  quote,
  collateral,
  root: certificates.root,
  nowMs: now,
})
const randomForgeries = () => fc.sample(randomPlatform, { numRuns: 60, seed: 7 }).map((change) => forge(change))

vectors.describe('npm’s dcap-qvl', () => {
  test('says the same of real quotes', async () => {
    const questions = realQuestions()
    expect(questions.length).toBeGreaterThan(15)
    for (const it of questions) expect(await javaScript(it)).toEqual(ours(it, intelRootFingerprint))
  })
})

describe('npm’s dcap-qvl on random platforms', () => {
  test('says the same', async () => {
    for (const forged of randomForgeries()) {
      const expected = ours(question(forged), forged.rootFingerprint)
      // It converges ConfigurationNeeded with an old quoting enclave to OutOfDate: not Intel's rule.
      const theirs = await javaScript(question(forged))
      if (expected.status === 'OutOfDateConfigurationNeeded') {
        expect(['OutOfDate', 'OutOfDateConfigurationNeeded']).toContain(theirs.status)
      } else {
        expect(theirs).toEqual(expected)
      }
    }
  })
})

requires('python-dcap-qvl').describe('PyPI’s dcap-qvl', () => {
  test('says the same of random platforms', () => {
    const forgeries = randomForgeries()
    const expected = forgeries.map((it) => ours(question(it), it.rootFingerprint))
    expect(new Set(expected.map((it) => it.status)).size).toBe(6)
    expect(rust(forgeries.map(question))).toEqual(expected)
  })
  test('refuses what we refuse', () => {
    const bad: ((plan: Plan) => void)[] = [
      (plan) => plan.pckCrl.revoked.push(3n),
      (plan) => plan.rootCrl.revoked.push(2n),
      (plan) => (plan.pckCrl.signer = 'stranger'),
      (plan) => (plan.tcbInfoSigner = 'stranger'),
      (plan) => (plan.qeReportSigner = 'stranger'),
      (plan) => (plan.quoteSigner = 'stranger'),
      (plan) => (plan.qeReport.mrSigner = 'ab'.repeat(32)),
      (plan) => (plan.tcbInfo.fmspc = '00c101570e01'),
      (plan) => (plan.tcbInfo.nextUpdate = '2026-10-31T00:00:00Z'),
    ]
    const answers = rust(bad.map((change) => question(forge(change))))
    expect(answers.map((it) => it.status)).toEqual(bad.map(() => 'refused'))
  })
})

requires('attestation-vectors', 'python-dcap-qvl').describe('PyPI’s dcap-qvl on real quotes', () => {
  test('says the same', () => {
    const questions = realQuestions()
    expect(rust(questions)).toEqual(questions.map((it) => ours(it, intelRootFingerprint)))
  })
})
