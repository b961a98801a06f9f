// SPDX-License-Identifier: Apache-2.0
/** The clouds' files are what our own client and `cloister --cloud` are told. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type CloudName, cloudProfile } from '../../src/attestation/cloud-profiles.ts'
import { parseQcnl } from '../../src/attestation/qcnl.ts'

const clouds = resolve(import.meta.dirname, '../../deploy/clouds')
const names = readdirSync(clouds, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []))
const fileOf = (name: string) => readFileSync(join(clouds, name, 'sgx_default_qcnl.conf'), 'utf8')

describe('deploy/clouds', () => {
  test('has the clouds of the reference system and one’s own data centre', () => {
    expect(names.sort()).toEqual(['alibaba', 'azure', 'bytedance', 'on-premises', 'tencent'])
  })

  test.each(['alibaba', 'azure', 'bytedance', 'tencent'] as CloudName[])(
    '%s: its file says what its profile says',
    (name) => {
      const { pccsUrl, collateralUrl, localPckUrl, requestOptions, useSecureCert } = cloudProfile(name, {
        region: 'cn-hangzhou',
      })
      expect(parseQcnl(fileOf(name))).toMatchObject({ pccsUrl, collateralUrl, requestOptions, useSecureCert: true })
      expect(parseQcnl(fileOf(name)).localPckUrl).toBe(localPckUrl)
      expect(useSecureCert).toBe(true)
    },
  )

  test('one’s own PCCS has a certificate that nobody signed', () => {
    expect(parseQcnl(fileOf('on-premises'))).toMatchObject({
      pccsUrl: 'https://pccs.service.com:8081/sgx/certification/v4/',
      useSecureCert: false,
    })
  })

  test.each(['alibaba', 'bytedance', 'tencent'])('%s: API v3 is offered, with a warning', (name) => {
    expect(fileOf(name)).toContain('/sgx/certification/v3/')
    expect(fileOf(name)).toContain('retired')
  })
})
