// SPDX-License-Identifier: Apache-2.0
/**
 * The bill of materials of the enclave image: SPDX 2.3 JSON of what is in it, from esbuild's own account of the bundle. `npm sbom` would list
 * everything that is installed, two thirds of which never comes into the enclave. No time and no random name: the same
 * sources give the same document.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { FileState } from '../src/engine/install.ts'
import { tensorflowVersion } from '../src/engine/locate.ts'
import type { Bundle } from './bundle.ts'

interface SpdxPackage {
  readonly SPDXID: string
  readonly name: string
  readonly versionInfo: string
  readonly licenseDeclared: string
  readonly licenseConcluded: 'NOASSERTION'
  readonly copyrightText: 'NOASSERTION'
  readonly downloadLocation: string
  readonly filesAnalyzed: false
  readonly checksums?: readonly { readonly algorithm: 'SHA256'; readonly checksumValue: string }[]
  readonly externalRefs?: readonly object[]
}

export async function billOfMaterials(root: string, built: Bundle, library: readonly FileState[]): Promise<string> {
  const { name, version, license } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as Described
  const application = described({ name, version, license })
  const parts = [
    ...built.packages.map((part) => described(part, `pkg:npm/${part.name.replace('@', '%40')}@${part.version}`)),
    ...library.map(({ name: file, expected }) => ({
      ...described({ name: file, version: tensorflowVersion, license: 'Apache-2.0' }),
      checksums: [{ algorithm: 'SHA256' as const, checksumValue: expected.sha256 }],
    })),
  ]
  const document = {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: `${name}-enclave-${version}`,
    documentNamespace: `https://spdx.org/spdxdocs/${name}-enclave-${version}-${digestOf(JSON.stringify(parts))}`,
    creationInfo: { created: '1970-01-01T00:00:00Z', creators: [`Tool: ${name}-${version}`] },
    documentDescribes: [application.SPDXID],
    packages: [application, ...parts],
    relationships: [
      relationship('SPDXRef-DOCUMENT', 'DESCRIBES', application.SPDXID),
      ...parts.map((part) => relationship(application.SPDXID, 'CONTAINS', part.SPDXID)),
    ],
  }
  return `${JSON.stringify(document, undefined, 2)}\n`
}

interface Described {
  readonly name: string
  readonly version: string
  readonly license: string
}

function described({ name, version, license }: Described, url?: string): SpdxPackage {
  return {
    SPDXID: `SPDXRef-${`${name}-${version}`.replace(/[^A-Za-z0-9.-]+/g, '-')}`,
    name,
    versionInfo: version,
    licenseDeclared: license.replace(/^\((.*)\)$/, '$1'),
    licenseConcluded: 'NOASSERTION',
    copyrightText: 'NOASSERTION',
    downloadLocation: 'NOASSERTION',
    filesAnalyzed: false,
    ...(url !== undefined && {
      externalRefs: [{ referenceCategory: 'PACKAGE-MANAGER', referenceType: 'purl', referenceLocator: url }],
    }),
  }
}

function relationship(from: string, relationshipType: string, to: string) {
  return { spdxElementId: from, relationshipType, relatedSpdxElement: to }
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}
