// The test suite: real DuckDB, local stub providers, no network, no sleeps.
import { defineConfig } from 'vitest/config';

// Workers are forked from this process and inherit the pool size; set later it has no effect.
process.env.UV_THREADPOOL_SIZE ??= '16';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/check/**', 'test/clients/**', 'test/models/**', 'test/faults/slow/**'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
