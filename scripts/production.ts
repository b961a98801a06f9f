/** Makes the build in dist/ a production image: one that refuses to simulate SGX. */
import { readFileSync, writeFileSync } from 'node:fs'

const file = new URL('../dist/cli/image.js', import.meta.url)
const development = readFileSync(file, 'utf8')
const production = development.replace("image = 'development'", "image = 'production'")
if (production === development) throw new Error(`${file.pathname}: expected a development build`)
writeFileSync(file, production)
