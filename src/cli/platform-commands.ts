// SPDX-License-Identifier: Apache-2.0
/** `cloister platform …` as typed: the directory is an operand. */
import type { CliContext } from './context.ts'
import { type ServeOptions, serve as serveOptions, setVariants } from './platform.ts'

export function serve(
  context: CliContext,
  options: Omit<ServeOptions, 'directory'>,
  directory: string,
): Promise<number> {
  return serveOptions(context, { ...options, directory })
}

export function set(context: CliContext, options: { variant?: readonly string[] }, directory: string): Promise<number> {
  return setVariants(context, { ...options, directory })
}
