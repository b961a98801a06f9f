// SPDX-License-Identifier: Apache-2.0
/**
 * The TensorFlow release that Cloister runs on: for each platform the wheel that pip fetches and what is taken out of it, each
 * with its SHA-256. The digests are part of the source, so neither an index nor a mirror nor a cache can put in other code.
 */
import { EngineError } from './engine-error.ts'
import { libraryFiles, tensorflowVersion } from './locate.ts'

export interface PinnedFile {
  readonly name: string
  readonly bytes: number
  readonly sha256: string
}

export interface Release {
  /** What pip is asked for. The name of the package and of the platform are those of the Python Package Index. */
  readonly requirement: string
  readonly platformTag: string
  readonly wheel: PinnedFile
  /** Members of the wheel's directory `tensorflow/`. */
  readonly files: readonly PinnedFile[]
}

/** The same for all platforms: licences of what is compiled into the library. */
const notices: PinnedFile = {
  name: 'THIRD_PARTY_NOTICES.txt',
  bytes: 466978,
  sha256: 'b9cc03566b8e0e074f718e64f96f49b6fe070e3f777c41b3d4bb0df7113ea634',
}

const releases: Readonly<Record<string, Release>> = {
  'linux-x64': {
    requirement: `tensorflow-cpu==${tensorflowVersion}`,
    platformTag: 'manylinux_2_27_x86_64',
    wheel: {
      name: `tensorflow_cpu-${tensorflowVersion}-cp311-cp311-manylinux_2_27_x86_64.whl`,
      bytes: 273829956,
      sha256: '2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c',
    },
    files: [
      {
        name: libraryFiles('linux').framework,
        bytes: 65222328,
        sha256: 'f060b323b26ef80add21b9df9428de3aeaf2843d772c5bb098745f7abff3709b',
      },
      {
        name: libraryFiles('linux').api,
        bytes: 788086608,
        sha256: '6505a4b9657e62100c6bdacb683957a395cb047725042945aaa50e40a71e429e',
      },
      notices,
    ],
  },
  'linux-arm64': {
    requirement: `tensorflow==${tensorflowVersion}`,
    platformTag: 'manylinux_2_27_aarch64',
    wheel: {
      name: `tensorflow-${tensorflowVersion}-cp311-cp311-manylinux_2_27_aarch64.whl`,
      bytes: 281828020,
      sha256: '4b24aca16d527a3cf1c37f720c04c484c3d20f4d0fdfa98632ac8b9f3be6eb5c',
    },
    files: [
      {
        name: libraryFiles('linux').framework,
        bytes: 68176664,
        sha256: 'deade33b9ab90ff468fd1d1f8f6079bec5a3a507cf2d13c3218aa8beec28aeb3',
      },
      {
        name: libraryFiles('linux').api,
        bytes: 814885544,
        sha256: '5f7de6ba6478ed7b83767a6e661e3e6e6931b05c64db14ba98250e52316a007c',
      },
      notices,
    ],
  },
  'darwin-arm64': {
    requirement: `tensorflow==${tensorflowVersion}`,
    platformTag: 'macosx_12_0_arm64',
    wheel: {
      name: `tensorflow-${tensorflowVersion}-cp311-cp311-macosx_12_0_arm64.whl`,
      bytes: 223405849,
      sha256: '51f46f4806139d01fc7920cc72a4c75876f80649bf40ff083ab6212ceb43ca88',
    },
    files: [
      {
        name: libraryFiles('darwin').framework,
        bytes: 49452976,
        sha256: 'e581d6db9e26f13e49327427e5d304cecbfe45d3467db7700e058857a4fd76bb',
      },
      {
        name: libraryFiles('darwin').api,
        bytes: 691352648,
        sha256: '753272d059c7be51f64369aaa8e12ac514ce372e0c4ba66f3cc49ec3b1c33384',
      },
      notices,
    ],
  },
}

export const supportedPlatforms = Object.keys(releases)

/** `platform` as Node names it, e.g. `linux-x64`. */
export function releaseFor(platform: string): Release {
  const release = Object.hasOwn(releases, platform) ? releases[platform] : undefined
  if (release === undefined)
    throw new EngineError(
      'engine-platform',
      `There is no TensorFlow library for ${platform}, only for ${supportedPlatforms.join(', ')}`,
      { hint: 'Run with `--engine javascript`, or configure the directory of a library of your own.' },
    )
  return release
}
