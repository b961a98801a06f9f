import { defineConfig } from 'vitest/config'

// `unit` is what `npm run check` runs; `slow` (training, real processes, foreign implementations) comes with `npm test`.
const slow = ['**/*.slow.test.ts', 'test/e2e/**']

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: { name: 'unit', include: ['{scripts,src,test}/**/*.test.ts'], exclude: slow, testTimeout: 60_000 },
      },
      {
        extends: true,
        test: {
          name: 'slow',
          globalSetup: ['test/e2e/build.ts'],
          include: ['{scripts,src,test}/**/*.slow.test.ts', 'test/e2e/**/*.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
})
