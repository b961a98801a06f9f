// SPDX-License-Identifier: Apache-2.0
/** The checks that SECURITY.md gives, run as they stand there: a good release passes, a changed one does not. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { requires } from '../requirements.ts'

const page = readFileSync(resolve(import.meta.dirname, '../../SECURITY.md'), 'utf8')
const blocks = [...page.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, commands]) => commands!)
const [withCosign, withOpenssl, signing] = blocks as [string, string, string]
let release: string

beforeEach(() => {
  release = mkdtempSync(join(tmpdir(), 'cloister-release-'))
  writeFileSync(join(release, 'cloister.tgz'), 'a package')
  writeFileSync(join(release, 'sbom.spdx.json'), '{}')
})
afterEach(() => rmSync(release, { recursive: true, force: true }))

const sh = (commands: string) =>
  spawnSync('/bin/sh', ['-ec', commands], {
    cwd: release,
    env: { PATH: process.env.PATH, HOME: release, COSIGN_PASSWORD: '' },
    encoding: 'utf8',
  })

/** What SECURITY.md has to say of both ways of checking. */
function accepts(check: string): void {
  expect(sh(check)).toMatchObject({ status: 0 })
}
function refusesChanges(check: string): void {
  const sums = readFileSync(join(release, 'SHA256SUMS'), 'utf8')
  writeFileSync(join(release, 'cloister.tgz'), 'another package')
  expect(sh(check).status).not.toBe(0)
  // An attacker who writes the sums too cannot sign them.
  sh('sha256sum cloister.tgz sbom.spdx.json >SHA256SUMS')
  expect(sh(check).status).not.toBe(0)
  writeFileSync(join(release, 'cloister.tgz'), 'a package')
  writeFileSync(join(release, 'SHA256SUMS'), sums)
  accepts(check)
  sh('openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout -out cosign.pub')
  expect(sh(check).status).not.toBe(0)
}

describe('with OpenSSL alone', () => {
  test('SECURITY.md’s check accepts a release and refuses a changed one', () => {
    const made = sh(`openssl ecparam -name prime256v1 -genkey -noout -out key.pem
openssl ec -in key.pem -pubout -out cosign.pub
sha256sum cloister.tgz sbom.spdx.json >SHA256SUMS
openssl dgst -sha256 -sign key.pem SHA256SUMS | base64 --wrap=0 >SHA256SUMS.sig`)
    expect(made.status).toBe(0)
    accepts(withOpenssl)
    refusesChanges(withOpenssl)
  })
})

requires('cosign').describe('with cosign', () => {
  test('what cosign signs as SECURITY.md says, cosign and OpenSSL accept, and refuse when changed', () => {
    expect(sh('cosign generate-key-pair').status).toBe(0)
    expect(sh(signing.replace('sha256sum *', 'sha256sum cloister.tgz sbom.spdx.json'))).toMatchObject({ status: 0 })
    accepts(withCosign)
    accepts(withOpenssl)
    refusesChanges(withCosign)
  })
})
