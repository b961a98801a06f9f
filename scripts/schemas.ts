// SPDX-License-Identifier: Apache-2.0
/** Writes schemas/*.schema.json from the validators, so that editors and the program agree. `npm run generate`. */
import { writeFileSync } from 'node:fs'
import { toJsonSchema } from '@valibot/to-json-schema'
import { deploymentSchema } from '../src/config/deployment.ts'
import { jobSchema } from '../src/config/job.ts'

for (const [name, schema] of [
  ['job', jobSchema],
  ['deployment', deploymentSchema],
] as const) {
  // Checks in code (6n+2 layers) have no JSON Schema form; the description in docs/configuration.md says them.
  const json = toJsonSchema(schema, { errorMode: 'ignore', typeMode: 'input' })
  const file = new URL(`../schemas/${name}.schema.json`, import.meta.url)
  writeFileSync(file, `${JSON.stringify({ ...json, title: `Cloister ${name}` }, null, 2)}\n`)
}
