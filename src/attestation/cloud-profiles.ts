// SPDX-License-Identifier: Apache-2.0
/**
 * Where each cloud has its PCCS. Hosts answer with API v4 where known to, else v3 (Intel itself retired v3 in 2026, HTTP 410).
 * Sources: the clouds' documentation of SGX attestation; Azure: "Trusted Hardware Identity Management".
 */
import { PccsError } from './pccs-error.ts'
import { intelPcsUrl, type QcnlConfig, qcnlFor } from './qcnl.ts'

export const cloudNames = ['intel', 'azure', 'alibaba', 'tencent', 'bytedance'] as const
export type CloudName = (typeof cloudNames)[number]

export interface CloudProfileOptions {
  /** Alibaba: the region of the instance, such as cn-beijing. */
  readonly region?: string
  /** Alibaba: true inside a VPC without a public address. */
  readonly privateNetwork?: boolean
}

export function cloudProfile(name: CloudName, options: CloudProfileOptions = {}): QcnlConfig {
  switch (name) {
    case 'intel':
      return qcnlFor(intelPcsUrl)
    case 'azure':
      return qcnlFor('https://global.acccache.azure.net/sgx/certification/v4/', {
        collateralUrl: intelPcsUrl,
        // Trusted Hardware Identity Management answers inside the machine only, plain HTTP, with this header.
        localPckUrl: 'http://169.254.169.254/metadata/THIM/sgx/certification/v4/',
        requestOptions: { headers: { metadata: 'true' }, params: { 'api-version': '2021-07-22-preview' } },
      })
    case 'alibaba': {
      const region = options.region
      if (region === undefined || !/^[a-z0-9-]{1,40}$/.test(region)) {
        throw new PccsError('pccs-configuration-invalid', `alibaba: expected a region, got ${region ?? 'none'}`, {
          hint: 'Name the region of the instance, such as cn-beijing.',
        })
      }
      const host = `sgx-dcap-server${options.privateNetwork ? '-vpc' : ''}.${region}.aliyuncs.com`
      return qcnlFor(`https://${host}/sgx/certification/v4/`)
    }
    case 'tencent':
      return qcnlFor('https://sgx-dcap-server-tc.sh.tencent.cn/sgx/certification/v3/')
    case 'bytedance':
      return qcnlFor('https://sgx-dcap-server.bytedance.com/sgx/certification/v3/')
  }
}
