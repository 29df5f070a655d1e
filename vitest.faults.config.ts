// Faults that take their time: servers that are killed under load, and loads that are too much. Not part of `npm test`.
import { defineConfig } from 'vitest/config';

process.env.UV_THREADPOOL_SIZE ??= '16';

export default defineConfig({
  // One after the other: each of them wants the machine for itself.
  test: { include: ['test/faults/slow/**/*.test.ts'], pool: 'forks', maxWorkers: 1, testTimeout: 180_000 },
});
