/** Makes a build a production image, one that refuses to simulate SGX: `dist`, or the directory that is named. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const file = join(process.argv[2] ?? 'dist', 'cli/image.js')
const development = readFileSync(file, 'utf8')
const production = development.replace("image = 'development'", "image = 'production'")
if (production === development) throw new Error(`${file}: expected a development build`)
writeFileSync(file, production)
