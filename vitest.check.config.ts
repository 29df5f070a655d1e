// Checks of the repository itself: floors, docs, names. Part of `npm run check`, not of `npm test`.
import { defineConfig } from 'vitest/config';

process.env.UV_THREADPOOL_SIZE ??= '16';

export default defineConfig({
  test: { include: ['test/check/**/*.test.ts'], pool: 'forks', maxWorkers: 2, testTimeout: 30_000 },
});
