// SPDX-License-Identifier: Apache-2.0
/** Where a run on this machine takes its images from: named, cached, downloaded, or (said loudly) synthetic. */
import type { Deployment } from '../config/deployment.ts'
import { type LocatedImages, locateImages } from '../data/locate.ts'
import type { EventSink } from '../observability/events.ts'
import { type CliContext, cacheDirectory } from './context.ts'

export async function dataForRun(
  context: CliContext,
  options: { readonly deployment: Deployment; readonly events: EventSink; readonly signal: AbortSignal },
): Promise<LocatedImages> {
  const { directory } = options.deployment.data
  return locateImages({
    cacheDirectory: cacheDirectory(context.env),
    ...(directory !== undefined && { directory }),
    events: options.events,
    signal: options.signal,
  })
}
