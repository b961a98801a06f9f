// SPDX-License-Identifier: Apache-2.0
/** DLRM (Naumov et al. 2019) on click logs in Criteo's format. */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { RecommendationJob } from '../../config/job.ts'
import { CriteoDataset } from '../../data/criteo/criteo-dataset.ts'
import { type CriteoSource, criteoSources } from '../../data/criteo/criteo-source.ts'
import { CriteoEncoder, needsAgreement, tableRows } from '../../data/criteo/encoding.ts'
import { openCriteo, splitHeldOut } from '../../data/criteo/open-criteo.ts'
import { CriteoPreparationServer, CriteoPreparationWorker } from '../../data/criteo/preparation.ts'
import { generatorFile, writeSyntheticCriteo } from '../../data/criteo/synthetic-criteo.ts'
import { openDataFile } from '../../keys/data-file.ts'
import { dlrm } from '../../models/dlrm.ts'
import type { DataOptions, Workload } from './workload.ts'

/** Made where no data are named: enough to see it learn. */
const syntheticRows = 200_000

export function recommendation(job: RecommendationJob): Workload {
  const { model, data, tables } = job
  const encoding = { dense: data.dense, categories: data.categories }
  const { malformedLines } = data
  return {
    createModel: () => dlrm({ ...model, rows: tableRows(data.categories) }),
    maximumRows: tables.maximumRows,
    ...(needsAgreement(encoding) && { preparation: () => new CriteoPreparationServer(encoding) }),
    async locate(options) {
      const directory = options.directory ?? (await synthetic(options))
      const sources = await criteoSources(directory)
      if (!sources.some(isEncrypted)) {
        // Converted once, before several processes would do it side by side.
        const cacheDirectory = rowCache(options.cacheDirectory)
        const rows = await openCriteo({ sources, cacheDirectory, malformedLines, signal: options.signal })
        await rows.close()
      }
      return { directory, dataSource: dataSourceOf(directory) }
    },
    async open(directory, { cacheDirectory, identities, signal }) {
      const known = await criteoSources(directory)
      const encrypted = known.some(isEncrypted)
      const own = encrypted ? await identities() : []
      const sources = encrypted ? await criteoSources(directory, (path) => openDataFile(path, own)) : known
      // What an owner encrypted is in the clear only where the enclave keeps it: its /tmp is in its memory.
      const temporary = encrypted ? await mkdtemp(join(tmpdir(), 'cloister-rows-')) : undefined
      const close = async (): Promise<void> => {
        if (temporary !== undefined) await rm(temporary, { recursive: true, force: true })
      }
      try {
        const rows = await openCriteo({
          sources,
          cacheDirectory: temporary ?? rowCache(cacheDirectory),
          malformedLines,
          signal,
        })
        const { training, heldOut } = splitHeldOut(rows.rows, { ...data.heldOut, seed: job.seed })
        const encoder = new CriteoEncoder(encoding)
        return {
          training: new CriteoDataset(rows, training, encoder),
          heldOut: new CriteoDataset(rows, heldOut, encoder),
          dataSource: dataSourceOf(directory),
          ...(needsAgreement(encoding) && {
            preparation: (examples: Uint32Array) =>
              new CriteoPreparationWorker(
                rows,
                examples.map((example) => training[example]!),
                encoder,
              ),
          }),
          async close() {
            await rows.close()
            await close()
          },
        }
      } catch (error) {
        await close()
        throw error
      }
    },
  }
}

function rowCache(cacheDirectory: string): string {
  return join(cacheDirectory, 'data', 'criteo-rows')
}

function isEncrypted({ name }: CriteoSource): boolean {
  return name.endsWith('.age')
}

/** The generator leaves its mark. */
function dataSourceOf(path: string): string {
  const marked = [path, dirname(path)].some((directory) => existsSync(join(directory, generatorFile)))
  return marked ? 'synthetic' : 'criteo'
}

/** The real logs' terms forbid passing them on: without any, rows of the same shape with clicks that can be learnt. */
async function synthetic({ cacheDirectory, events, signal }: DataOptions): Promise<string> {
  const directory = join(cacheDirectory, 'data', 'criteo-synthetic')
  if (existsSync(join(directory, generatorFile))) return directory
  await writeSyntheticCriteo({ directory, rows: syntheticRows, seed: 1, files: 1, gzip: false, events, signal })
  return directory
}
