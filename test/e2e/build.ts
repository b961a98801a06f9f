/** Vitest's global set-up of the slow tests: builds `dist/`, which end-to-end tests start, once. */
import { execFileSync } from 'node:child_process'
import { resolve } from 'node:path'

export function setup(): void {
  execFileSync('npm', ['run', '--silent', 'build'], { cwd: resolve(import.meta.dirname, '../..'), stdio: 'inherit' })
}
