// Builds dist/ for publishing: every file of src/ becomes one JavaScript file (esbuild, not bundled) and one
// declaration file (tsc). `#floor/x.ts` and `./x.ts` become relative `.js` paths, so that dist/ needs no import map.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { build } from 'esbuild';
import { findImports } from './imports.ts';

const ROOT = join(import.meta.dirname, '..');
const SRC = join(ROOT, 'src');
const DIST = join(ROOT, 'dist');

export async function buildPackage(): Promise<number> {
  rmSync(DIST, { recursive: true, force: true });
  const sources = filesOf(SRC, '.ts');
  await build({
    entryPoints: sources.map((path) => join(SRC, path)),
    outdir: DIST,
    outbase: SRC,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    bundle: false,
    // esbuild would otherwise read it and find rules that only tsc understands.
    tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true, target: 'ES2023' } },
    logLevel: 'warning',
  });
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], {
    cwd: ROOT,
    stdio: 'inherit',
  });
  if (status !== 0) throw new Error('The declarations cannot be made: tsc found the errors above.');
  const outputs = [...filesOf(DIST, '.js'), ...filesOf(DIST, '.d.ts')];
  const known = new Set(outputs);
  for (const path of outputs) {
    const file = join(DIST, path);
    writeFileSync(file, rewriteSpecifiers(readFileSync(file, 'utf8'), path, known));
  }
  if (outputs.length !== sources.length * 2) {
    throw new Error(
      `dist/ has ${outputs.length} files for ${sources.length} sources; two for each were expected.`,
    );
  }
  return sources.length;
}

/** `path` is that of the file below dist/; `known` are the files there. Throws where a specifier leads nowhere. */
export function rewriteSpecifiers(code: string, path: string, known: ReadonlySet<string>): string {
  let result = '';
  let at = 0;
  for (const { kind, specifier, start, end } of findImports(code)) {
    if (specifier === null || !/^[.#]/.test(specifier) || (kind === 'url' && !specifier.endsWith('.ts')))
      continue;
    const target = specifier.startsWith('#')
      ? specifier.slice(1)
      : join(dirname(path), specifier).split(sep).join('/');
    const built = target.replace(/\.ts$/, '.js');
    if (!known.has(built))
      throw new Error(`dist/${path} imports '${specifier}', and dist/${built} does not exist.`);
    const fromHere = relative(dirname(path), built).split(sep).join('/');
    // Workers are named by their source; startWorker changes the ending by itself, so theirs stays.
    const rewritten = kind === 'url' ? specifier : fromHere.startsWith('.') ? fromHere : `./${fromHere}`;
    result += code.slice(at, start) + rewritten;
    at = end;
  }
  return result + code.slice(at);
}

function filesOf(folder: string, ending: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((path) => path.split(sep).join('/'))
    .filter((path) => path.endsWith(ending));
}

if (process.argv[1] === import.meta.filename) {
  const startedMs = performance.now();
  try {
    const count = await buildPackage();
    console.log(
      `Built ${count} modules into dist/ in ${((performance.now() - startedMs) / 1000).toFixed(1)} s.`,
    );
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
