// SPDX-License-Identifier: Apache-2.0
/**
 * Nobody can change what an image is built on or what runs beside it by moving a tag: docs/decisions/0022-images-by-digest.md.
 * A base for which there is no Gramine is refused before anything is installed.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { directory, freshDirectories, program, run, told } from './scripts.ts'

const root = resolve(import.meta.dirname, '../..')
const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const chart = 'deploy/kubernetes/cloister'
const yamlOf = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(yaml|tpl)$/.test(name))
    .map((name) => join(folder, name))

const PINNED = /^docker\.io\/[a-z0-9/-]+:[\w.-]+@sha256:[0-9a-f]{64}$/
/** Built here, so that it has no digest ahead. */
const OWN = /^horizontal_fl(:|$)/
/** No digest of it could be established. */
const KNOWN = ['docker.io/openanolis/anolisos:8.10']

/** What stands where an image is named in a Dockerfile, a shell script, a compose file or a chart, and is not pinned. */
function unpinned(text: string): string[] {
  const stages = new Set([...text.matchAll(/^FROM .* AS (\S+)/gm)].map(([, stage]) => stage))
  const named = text.matchAll(
    /(?:^FROM (?:--\S+ )*|^ARG \w*IMAGE=|--from=|[,=]from=|^\s*(?:- )?(?:image|repository): |\bbase=)(\S+)/gm,
  )
  return [...named]
    .map(([, value = '']) => value.replace(/^["']|["']$/g, '').replace(/^\$\{\w+:-(.*)\}$/, '$1'))
    .filter((value) => value !== '' && !value.startsWith('$') && !value.startsWith('{{') && !stages.has(value))
    .filter((value) => !value.startsWith('platform-$') && !OWN.test(value) && !PINNED.test(value))
}

freshDirectories()

describe('images are named with their digest', () => {
  test.each(['deploy/docker/Dockerfile', 'compose.yaml', ...yamlOf(chart)])('in %s', (file) => {
    expect(unpinned(read(file))).toEqual([])
  })

  test('by build_docker_image.sh, but for Anolis OS', () => {
    expect(unpinned(read('deploy/docker/build_docker_image.sh'))).toEqual(KNOWN)
  })

  test('a chart’s pods run the image of its values and no other', () => {
    const images = yamlOf(`${chart}/templates`).flatMap((file) => read(file).match(/^\s*-?\s*image:.*$/gm) ?? [])
    expect(images).not.toEqual([])
    for (const line of images) expect(line).toContain('{{ include "cloister.image" . | quote }}')
  })

  const digest = 'a'.repeat(64)
  const short = 'prom/prometheus:v3'
  test.each([
    ['a base by its tag', 'FROM docker.io/library/ubuntu:24.04 AS runtime', ['docker.io/library/ubuntu:24.04']],
    ['an argument', 'ARG NODE_IMAGE=docker.io/library/node:20', ['docker.io/library/node:20']],
    ['an image that is only copied from', 'COPY --from=busybox:1 /bin /bin', ['busybox:1']],
    ['a default of compose', `  - image: \${P:-docker.io/${short}}`, [`docker.io/${short}`]],
    ['a short name', `image: "ubuntu:24.04@sha256:${digest}"`, [`ubuntu:24.04@sha256:${digest}`]],
    ['a digest without a tag', `  image: docker.io/a/b@sha256:${digest}`, [`docker.io/a/b@sha256:${digest}`]],
    ['half a digest', '  repository: docker.io/a/b:1@sha256:abc', ['docker.io/a/b:1@sha256:abc']],
    ['a stage and a pinned base', `FROM docker.io/a/b:1@sha256:${digest} AS x\nFROM x AS y\nCOPY --from=x / /`, []],
  ])('finds %s', (_, text, found) => {
    expect(unpinned(text)).toEqual(found)
  })
})

describe('Gramine and Intel’s packages', () => {
  function install(codename: string, version: string) {
    mkdirSync(join(directory, 'etc'))
    writeFileSync(join(directory, 'etc/os-release'), `VERSION_CODENAME=${codename}\n`)
    program('apt-get', `echo "$*" >>'${directory}/told'; exit 100`)
    return run('packages/apt-sgx.sh', [], { CLOISTER_TEST_ROOT: directory, GRAMINE_VERSION: version })
  }

  test.each(['1.9', '1.9.1', '1.10', '2.0'])('Gramine %s on Ubuntu 20.04 is refused by name', (version) => {
    const { status, err } = install('focal', version)
    expect(status).toBe(1)
    expect(err).toContain(`Gramine ${version} has no packages for Ubuntu 20.04`)
    expect(err).toContain('  → Take a base of Ubuntu 22.04 or 24.04')
    expect(existsSync(join(directory, 'told'))).toBe(false)
  })

  test.each([
    ['focal', '1.8'],
    ['jammy', '1.9'],
    ['noble', '1.9'],
  ])('on %s Gramine %s is looked for', (codename, version) => {
    expect(install(codename, version).status).toBe(100)
    expect(told()).toEqual(['update'])
  })
})
