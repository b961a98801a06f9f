import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { cloudNames, cloudProfile } from './cloud-profiles.ts'
import { PccsError } from './pccs-error.ts'
import { parseQcnl, qcnlFor } from './qcnl.ts'

const url = 'https://pccs.test:8081/sgx/certification/v4/'

describe('JSON with comments', () => {
  test('every key that Intel documents', () => {
    const config = parseQcnl(`// *** ATTENTION : this file is an example ***
{
  "pccs_url": "${url}"   // a comment with a " in it
  // To accept insecure HTTPS certificate, set this option to false
  ,"use_secure_cert": false
  ,"collateral_service": "https://api.trustedservices.intel.com/sgx/certification/v4"
  /* several
     lines */
  ,"pccs_api_version": "3.1"
  ,"retry_times": 6
  ,"retry_delay": 10
  ,"local_pck_url": "http://localhost:8081/sgx/certification/v4/"
  ,"pck_cache_expire_hours": 168.5
  ,"verify_collateral_cache_expire_hours": 100000
  ,"local_cache_only": true
  ,"tcb_update_type": "early"
  ,"custom_request_options" : {
    "get_cert" : {
      "headers": { "head1": "value // not a comment" },
      "params": { "param1": "value1", "escaped\\"": "/* neither */" }
    }
  }
  ,"something_new": 1
}`)
    expect(config).toEqual({
      pccsUrl: url,
      collateralUrl: 'https://api.trustedservices.intel.com/sgx/certification/v4/',
      useSecureCert: false,
      retryTimes: 6,
      retryDelayMs: 10_000,
      localPckUrl: 'http://localhost:8081/sgx/certification/v4/',
      pckCacheHours: 168.5,
      collateralCacheHours: 2160,
      localCacheOnly: true,
      tcbUpdateType: 'early',
      requestOptions: {
        headers: { head1: 'value // not a comment' },
        params: { param1: 'value1', 'escaped"': '/* neither */' },
      },
    })
  })

  test('without a collateral service the PCCS is it; TLS certificates are checked unless told not to', () => {
    expect(parseQcnl(`{"pccs_url":"${url}"}`)).toMatchObject({ collateralUrl: url, useSecureCert: true })
  })
})

describe('KEY=value', () => {
  test('the old form', () => {
    const config = parseQcnl(`# PCCS server address\r\nPCCS_URL=${url}\r\n\r\nUSE_SECURE_CERT=FALSE # self-signed\r\n`)
    expect(config).toMatchObject({ pccsUrl: url, collateralUrl: url, useSecureCert: false })
    expect(parseQcnl(`PCCS_URL = ${url}`).useSecureCert).toBe(true)
  })
})

describe('refused, with the place', () => {
  test.each([
    ['', 'PCCS_URL'],
    ['# nothing', 'PCCS_URL'],
    ['PCCS_URL', 'line 1'],
    ['PCCS_URL=', 'line 1'],
    [`PCCS_URL=${url}\nUSE_SECURE_CERT=MAYBE`, 'USE_SECURE_CERT'],
    ['PCCS_URL=not an url', 'pccs_url'],
    ['PCCS_URL=file:///etc/passwd', 'pccs_url'],
    ['{}', 'pccs_url'],
    ['{"pccs_url":1}', 'pccs_url'],
    ['{"pccs_url":"https://pccs.test/?a=b"}', 'pccs_url'],
    ['{"pccs_url":"https://pccs.test/#a"}', 'pccs_url'],
    [`{"pccs_url":"${url}","use_secure_cert":"false"}`, 'use_secure_cert'],
    [`{"pccs_url":"${url}","collateral_service":"ftp://x/"}`, 'collateral_service'],
    [`{"pccs_url":"${url}","local_pck_url":"x"}`, 'local_pck_url'],
    [`{"pccs_url":"${url}","retry_times":-1}`, 'retry_times'],
    [`{"pccs_url":"${url}","retry_times":1.5}`, 'retry_times'],
    [`{"pccs_url":"${url}","tcb_update_type":"all"}`, 'tcb_update_type'],
    [
      `{"pccs_url":"${url}","custom_request_options":{"get_cert":{"headers":{"a":1}}}}`,
      'custom_request_options.get_cert',
    ],
    [`{"pccs_url":"${url}"`, 'JSON'],
    [`{"pccs_url":"${url}",}`, 'JSON'],
    [' '.repeat(65_537), '65536'],
  ])('%j', (text, place) => {
    expect(() => parseQcnl(text)).toThrow(
      expect.objectContaining({ code: 'pccs-configuration-invalid', message: expect.stringContaining(place) }),
    )
  })

  test('whatever the file holds: a configuration or this error', () => {
    const fragment = fc.constantFrom(
      '{',
      '}',
      '"',
      '//',
      '/*',
      '*/',
      '\n',
      ':',
      ',',
      '\\',
      'pccs_url',
      '=',
      url,
      'PCCS_URL',
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(fragment).map((parts) => parts.join('')),
        ),
        (text) => {
          try {
            expect(parseQcnl(text).pccsUrl).toMatch(/^https?:.*\/$/)
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(PccsError)
          }
        },
      ),
      { numRuns: 500 },
    )
  })

  test('comments do not take quadratic time', () => {
    const text = `{"pccs_url":"${url}"${'/*'.repeat(20_000)}`
    expect(() => parseQcnl(text)).toThrow(PccsError)
  })
})

describe('clouds', () => {
  test('each has a service that speaks the API', () => {
    for (const name of cloudNames) {
      const config = cloudProfile(name, { region: 'cn-beijing' })
      expect(config.pccsUrl).toMatch(/^https:\/\/[a-z0-9.-]+\/sgx\/certification\/v[34]\/$/)
      expect(config.useSecureCert).toBe(true)
    }
  })

  test('Azure asks the machine’s own service for PCK certificates, and Intel for collateral', () => {
    expect(cloudProfile('azure')).toMatchObject({
      collateralUrl: 'https://api.trustedservices.intel.com/sgx/certification/v4/',
      localPckUrl: 'http://169.254.169.254/metadata/THIM/sgx/certification/v4/',
      requestOptions: { headers: { metadata: 'true' }, params: { 'api-version': '2021-07-22-preview' } },
    })
  })

  test('Alibaba has one a region, and one inside a private network', () => {
    expect(cloudProfile('alibaba', { region: 'cn-hangzhou' }).pccsUrl).toContain(
      'sgx-dcap-server.cn-hangzhou.aliyuncs.com',
    )
    const inside = cloudProfile('alibaba', { region: 'cn-hangzhou', privateNetwork: true })
    expect(inside.pccsUrl).toContain('sgx-dcap-server-vpc.cn-hangzhou.aliyuncs.com')
    for (const region of [undefined, '', 'evil.test/', 'a b']) {
      const made = () => cloudProfile('alibaba', region === undefined ? {} : { region })
      expect(made).toThrow(expect.objectContaining({ code: 'pccs-configuration-invalid' }))
    }
  })

  test('changes go over the defaults', () => {
    expect(qcnlFor('https://pccs.test/x', { retryTimes: 0 })).toMatchObject({
      pccsUrl: 'https://pccs.test/x/',
      retryTimes: 0,
    })
  })
})
