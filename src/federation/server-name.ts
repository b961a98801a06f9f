// SPDX-License-Identifier: Apache-2.0
/** What a server calls its files and its line on the terminal: the only one of a job, and the one that leads, is `server`. */
export function serverName(index: number): string {
  return index === 0 ? 'server' : `server${index}`
}
