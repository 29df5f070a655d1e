// Runs benchmarks: `npm run bench -- NAME... [--scale 0.1] [--json]`, or `all`. Prints ratios against a peer or a
// limit of the same run. Fails when a promise is broken, never because of a time.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { oneMinuteLoad, toMarkdown, toMeasured } from './report.ts';
import type { Scenario } from './scenario.ts';
import { type Stub, startStub } from './stub.ts';

const LOADERS: Readonly<Record<string, () => Promise<{ readonly scenario: Scenario }>>> = {
  'sql-distinct': () => import('./scenarios/sql-distinct.ts'),
  'early-stop': () => import('./scenarios/early-stop.ts'),
  'side-by-side': () => import('./scenarios/side-by-side.ts'),
  misbehaving: () => import('./scenarios/misbehaving.ts'),
  'kill-resume': () => import('./scenarios/kill-resume.ts'),
  predict: () => import('./scenarios/predict.ts'),
  embed: () => import('./scenarios/embed.ts'),
  budget: () => import('./scenarios/budget.ts'),
  http: () => import('./scenarios/http.ts'),
  'custom-models': () => import('./scenarios/custom-models.ts'),
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { scale: { type: 'string', default: '1' }, json: { type: 'boolean', default: false } },
});
const scale = Number(values.scale);
if (!(scale > 0 && scale <= 10))
  refuse(`--scale is "${values.scale}"; it must be a number above 0 and up to 10.`);
const wanted = positionals.includes('all') ? Object.keys(LOADERS) : positionals;
const unknown = wanted.filter((name) => !LOADERS[name]);
if (wanted.length === 0 || unknown.length > 0) {
  const problem = wanted.length === 0 ? 'Name a benchmark' : `There is no benchmark ${unknown.join(', ')}`;
  refuse(`${problem}: ${Object.keys(LOADERS).join(', ')}, or all.`);
}

for (const name of wanted) {
  const measured = await measure(name);
  console.log(values.json ? JSON.stringify(measured) : toMarkdown(measured));
  if (measured.promises.some(({ holds }) => !holds)) process.exitCode = 1;
}

async function measure(name: string) {
  const { scenario } = (await LOADERS[name]?.()) ?? {};
  if (!scenario) throw new Error(`The benchmark ${name} could not be loaded.`);
  const stubs: Stub[] = [];
  const directory = await mkdtemp(join(tmpdir(), 'duckserve-bench-'));
  const loadBefore = oneMinuteLoad();
  try {
    const report = await scenario.run({
      scale,
      directory,
      startStub: async (flags) => {
        const stub = await startStub(flags);
        stubs.push(stub);
        return stub;
      },
    });
    return toMeasured(name, scale, loadBefore, report);
  } finally {
    await Promise.all(stubs.map((stub) => stub.stop()));
    await rm(directory, { recursive: true, force: true });
  }
}

function refuse(problem: string): never {
  console.error(problem);
  process.exit(2);
}
