// Checks of the repository itself: floors, docs, names. Part of `npm run check`, not of `npm test`.
import { defineConfig } from 'vitest/config';

export default defineConfig({ test: { include: ['test/check/**/*.test.ts'] } });
