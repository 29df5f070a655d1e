// Tests with models that real libraries have trained, against one `duckserve serve`: what SQL and HTTP give is what
// the library itself predicts. Skipped with a printed reason where there is no Python with the libraries.
import { defineConfig } from 'vitest/config';

process.env.UV_THREADPOOL_SIZE ??= '16';

export default defineConfig({
  test: {
    include: ['test/models/**/*.test.ts'],
    globalSetup: 'test/models/global.ts',
    pool: 'forks',
    // One after the other: processes of Python are killed and their memory is watched.
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
