// The house stands as drawn: floors lean only downwards, packages stop at their borders, files look alike.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findImports } from '../../scripts/imports.ts';
import { BORDERS, FLOORS, findViolations, floorOf, parseModules, type SourceFile } from './floors.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const SRC = join(ROOT, 'src');
/** Fewer than there have been for long: a walk that finds less is broken. */
const FEWEST_MODULES = 120;

function walk(folder: string, prefix = ''): SourceFile[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = `${prefix}${entry.name}`;
    if (entry.isDirectory()) return walk(join(folder, entry.name), `${path}/`);
    return path.endsWith('.ts') ? [{ path, source: readFileSync(join(folder, entry.name), 'utf8') }] : [];
  });
}

type Manifest = Readonly<
  Record<'dependencies' | 'devDependencies' | 'peerDependencies', Readonly<Record<string, string>>>
>;

const modules = parseModules(walk(SRC));

describe('the house', () => {
  it('has every rule kept in every file', () => {
    expect(findViolations(modules)).toEqual([]);
  });

  it('was looked at as a whole: no fewer modules than files, and no import overlooked', () => {
    const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((path) =>
      path.endsWith('.ts'),
    );
    expect(modules.length).toBe(files.length);
    expect(modules.length).toBeGreaterThanOrEqual(FEWEST_MODULES);
    for (const { path, source, imports } of modules) {
      // A second, cruder count: lines that end an import or a re-export.
      const lines = source
        .split('\n')
        .filter((line) => /^(import\b|export\b|\}).*\bfrom '[^']+';$/.test(line));
      const counted = imports.filter(({ kind }) => kind === 'static' || kind === 'type');
      expect(counted.length, path).toBeGreaterThanOrEqual(lines.length);
    }
  });

  it('has no import in a circle', () => {
    expect(findCircles()).toEqual([]);
  });

  it('knows every package it depends on, and no other', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;
    // Types of a runtime that is itself a dependency; it comes along with it.
    const known = [
      ...Object.keys(manifest.dependencies),
      ...Object.keys(manifest.peerDependencies),
      'onnxruntime-common',
    ];
    expect(Object.keys(BORDERS).sort()).toEqual(known.sort());
  });

  it('has a reason for every package in docs/decisions/0003-dependencies.md', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;
    const text = readFileSync(join(ROOT, 'docs/decisions/0003-dependencies.md'), 'utf8');
    const all = Object.keys({
      ...manifest.dependencies,
      ...manifest.devDependencies,
      ...manifest.peerDependencies,
    });
    expect(all.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });
});

/** Circles of imports that run; those of types alone cost nothing. */
function findCircles(): string[] {
  const known = new Map(modules.map((module) => [module.path, module]));
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (path: string, trail: readonly string[]) => {
    if (trail.includes(path))
      return void circles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
    if (done.has(path)) return;
    for (const { kind, specifier } of known.get(path)?.imports ?? []) {
      if (kind !== 'static' || specifier === null) continue;
      if (specifier.startsWith('#')) visit(specifier.slice(1), [...trail, path]);
      else if (specifier.startsWith('.')) visit(join(path, '..', specifier), [...trail, path]);
    }
    done.add(path);
  };
  for (const { path } of modules) visit(path, []);
  return circles;
}

describe('the check itself', () => {
  const HEADER = '// For a test.\n';
  const violations = (path: string, source: string, others: readonly string[] = []) =>
    findViolations(
      parseModules([
        { path, source: HEADER + source },
        ...others.map((other) => ({ path: other, source: HEADER })),
      ]),
    ).filter((line) => line.startsWith(path));

  it('gives no complaint about a file in order', () => {
    const source =
      "import { readFileSync } from 'node:fs';\nimport type { A } from '#core/a.ts';\nimport { b } from './b.ts';\n";
    expect(violations('serving/x.ts', source, ['core/a.ts', 'serving/b.ts'])).toEqual([]);
  });

  it.each([
    ["import { a } from '#session/a.ts';", 'serving may not import session'],
    ["import type { A } from '#session/a.ts';", 'serving may not import session'],
    ["import { type A } from '#session/a.ts';", 'serving may not import session'],
    ["import * as a from '#session/a.ts';", 'serving may not import session'],
    ["import '#session/a.ts';", 'serving may not import session'],
    ["export { a } from '#session/a.ts';", 'serving may not import session'],
    ["export * from '#session/a.ts';", 'serving may not import session'],
    ["export type { A } from '#session/a.ts';", 'serving may not import session'],
    ["const a = await import('#session/a.ts');", 'serving may not import session'],
    ["type A = typeof import('#session/a.ts');", 'serving may not import session'],
    ["const url = new URL('../session/a.ts', import.meta.url);", 'serving may not import session'],
    ["import { a } from '../session/a.ts';", 'crosses a floor: write it as #session/a.ts'],
    ["import { a } from '#serving/b.ts';", 'is on the same floor'],
    ["import { a } from '#core/missing.ts';", 'does not exist'],
    ["import { a } from './b.js';", 'must end with .ts'],
    ["import { a } from '#app.ts';", 'serving may not import top'],
    [
      "import { DuckDBInstance } from '@duckdb/node-api';",
      "package '@duckdb/node-api' stops at storage, session",
    ],
    ["import type { Hono } from 'hono';", "package 'hono' stops at server/http"],
    ["import { open } from 'lmdb';", "package 'lmdb' stops at storage"],
    ["import leftPad from 'left-pad';", "package 'left-pad' has no border yet"],
    ['const a = await import(name);', 'not a plain text'],
    ['export default 1;', 'default export'],
    ['export enum Color { Red }', 'enum'],
    ['export namespace Color { }', 'namespace'],
  ])('finds the fault in: %s', (source, complaint) => {
    const found = violations('serving/x.ts', source, ['session/a.ts', 'serving/b.ts', 'app.ts']);
    expect(found.join('\n')).toContain(complaint);
  });

  it('finds a heavy package that is not loaded lazily', () => {
    expect(
      violations('engines/onnx/x.ts', "import { InferenceSession } from 'onnxruntime-node';").join(),
    ).toContain('load it with import()');
    expect(
      violations('engines/onnx/x.ts', "import type { InferenceSession } from 'onnxruntime-node';"),
    ).toEqual([]);
    expect(violations('engines/onnx/x.ts', "const runtime = await import('onnxruntime-node');")).toEqual([]);
  });

  it('lets a door use the value formats of storage and nothing else of it', () => {
    const others = ['storage/values.ts', 'storage/database.ts'];
    expect(violations('cli/x.ts', "import { a } from '#storage/values.ts';", others)).toEqual([]);
    expect(violations('cli/x.ts', "import { a } from '#storage/database.ts';", others).join()).toContain(
      'a door may import only',
    );
    expect(
      violations('cli/x.ts', "import { a } from '#server/http/app.ts';", ['server/http/app.ts']).join(),
    ).toContain('cli may not import server/http');
  });

  it('finds a missing or long comment, a long file, an unclear name', () => {
    const shape = (path: string, source: string) =>
      findViolations(parseModules([{ path, source }])).join('\n');
    expect(shape('core/x.ts', 'export const a = 1;\n')).toContain('begins without a comment');
    expect(shape('core/x.ts', '//\n'.repeat(5))).toContain('four are enough');
    expect(shape('core/x.ts', `// X.\n${'\n'.repeat(400)}`)).toContain('401 lines');
    expect(shape('core/someThing.ts', HEADER)).toContain('not kebab-case');
    expect(shape('core/call-utils.ts', HEADER)).toContain("'utils' says nothing");
    expect(shape('somewhere/x.ts', HEADER)).toContain('no floor');
  });

  it('reads code as code: imports in comments, texts, templates and regular expressions are none', () => {
    const source = [
      "// import { a } from 'a';",
      "/* import { b } from 'b'; */",
      'const text = "import { c } from \'c\'";',
      "const template = `import { d } from 'd' ${[1, { e: 'e' }].length} import('f')`;",
      'const regex = /[\'"]/g; const half = 4 / 2;',
      "const nested = `${`${'g'}`}`;",
      "const object = { import: 'h', from: 'i' };",
      'console.log(import.meta.url, object.import);',
      "import { real } from 'real';",
    ].join('\n');
    expect(findImports(source).map(({ specifier, line }) => ({ specifier, line }))).toEqual([
      { specifier: 'real', line: 9 },
    ]);
  });

  it('puts every file of the tree on a floor of the table', () => {
    expect([...new Set(modules.map(({ path }) => floorOf(path)))].sort()).toEqual(
      expect.arrayContaining([
        'cli',
        'core',
        'engines',
        'functions',
        'registry',
        'server/http',
        'serving',
        'session',
        'storage',
        'top',
      ]),
    );
    expect(Object.keys(FLOORS)).not.toContain('top');
  });
});
