// SPDX-License-Identifier: Apache-2.0
/** Where TensorFlow's library lies and what its files are called. */
import { join } from 'node:path'

export const tensorflowVersion = '2.21.0'

/** Each user has one copy for each platform and version, so that an upgrade never meets a half-matching library. */
export function engineDirectory(
  cacheDirectory: string,
  platform: string = process.platform,
  architecture: string = process.arch,
): string {
  return join(cacheDirectory, 'engine', `tensorflow-${tensorflowVersion}-${platform}-${architecture}`)
}

/** In the order of loading: the C API needs the framework. */
export function libraryFiles(platform: string = process.platform): { framework: string; api: string } {
  return platform === 'darwin'
    ? { framework: 'libtensorflow_framework.2.dylib', api: 'libtensorflow_cc.2.dylib' }
    : { framework: 'libtensorflow_framework.so.2', api: 'libtensorflow_cc.so.2' }
}
