// The build's rewriting of import paths; the build itself is `npm run build`.
import { describe, expect, it } from 'vitest';
import { rewriteSpecifiers } from '../../scripts/build.ts';

const known = new Set([
  'core/call.js',
  'serving/serving.js',
  'serving/batch.js',
  'server/http/app.js',
  'app.js',
  'core/call.d.ts',
]);
const rewrite = (code: string, path = 'serving/serving.js') => rewriteSpecifiers(code, path, known);

describe('import paths in dist/', () => {
  it('become relative and end with .js, across floors and within', () => {
    expect(rewrite("import { a } from '#core/call.ts';")).toBe("import { a } from '../core/call.js';");
    expect(rewrite("export * from './batch.ts';")).toBe("export * from './batch.js';");
    expect(rewrite('import { a } from "#serving/serving.ts";', 'app.js')).toBe(
      'import { a } from "./serving/serving.js";',
    );
    expect(rewrite("const a = await import('#core/call.ts');", 'server/http/app.js')).toBe(
      "const a = await import('../../core/call.js');",
    );
    expect(rewrite("type A = import('#core/call.ts').Answer;")).toBe(
      "type A = import('../core/call.js').Answer;",
    );
  });

  it('of packages, of texts and of workers stay as they are', () => {
    const code = "import fs from 'node:fs';\nimport { Hono } from 'hono';\nconst text = './batch.ts';\n";
    expect(rewrite(code)).toBe(code);
    // startWorker changes the ending itself.
    const worker = "new URL('./batch.ts', import.meta.url)";
    expect(rewrite(worker)).toBe(worker);
  });

  it('that lead nowhere end the build', () => {
    expect(() => rewrite("import { a } from '#core/missing.ts';")).toThrow(
      'dist/core/missing.js does not exist',
    );
  });
});
