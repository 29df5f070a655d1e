// Tests with real clients of other ecosystems; each skips with a printed reason where its client is absent.
import { defineConfig } from 'vitest/config';

process.env.UV_THREADPOOL_SIZE ??= '16';

export default defineConfig({
  test: { include: ['test/clients/**/*.test.ts'], pool: 'forks', testTimeout: 120_000 },
});
