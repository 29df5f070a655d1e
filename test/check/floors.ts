// The rules of the house as data and as a function over source texts: which floor may import which, where
// third-party packages stop, and what every file looks like. The picture of it is in docs/architecture.md.
import { posix } from 'node:path';
import { findImports, type ImportStatement, tokenizeCode } from '../../scripts/imports.ts';

/** What each floor may import besides itself. Files directly under src/ are the top floor and may import anything. */
export const FLOORS: Readonly<Record<string, readonly string[]>> = {
  core: [],
  config: ['core'],
  storage: ['core'],
  engines: ['core'],
  functions: ['core'],
  registry: ['core', 'storage'],
  governance: ['core', 'storage'],
  serving: ['core', 'registry', 'governance', 'engines'],
  session: ['core', 'storage', 'functions', 'serving'],
  'server/http': ['core', 'storage', 'registry', 'governance', 'serving', 'session'],
  'server/pg': ['core', 'storage', 'registry', 'governance', 'serving', 'session'],
  cli: ['core', 'storage', 'registry', 'governance', 'serving', 'session'],
};
const TOP = 'top';
/** Doors may use how storage spells values, not the stores. */
const STORAGE_FOR_DOORS: readonly string[] = ['storage/values.ts'];
const DOORS: readonly string[] = ['server/http', 'server/pg', 'cli'];

/** Where a package may be imported: folders below src/, or `top`. `lazily`: only by `import()`, or for types. */
export interface Border {
  readonly folders: readonly string[];
  readonly lazily?: boolean;
}
export const BORDERS: Readonly<Record<string, Border>> = {
  '@duckdb/node-api': { folders: ['storage', 'session'] },
  '@hono/node-server': { folders: ['server/http'] },
  '@huggingface/tokenizers': { folders: ['engines/onnx'], lazily: true },
  '@opentelemetry/api': { folders: ['telemetry'], lazily: true },
  '@opentelemetry/exporter-trace-otlp-http': { folders: ['telemetry'], lazily: true },
  '@opentelemetry/resources': { folders: ['telemetry'], lazily: true },
  '@opentelemetry/sdk-trace-base': { folders: ['telemetry'], lazily: true },
  '@smithy/eventstream-codec': { folders: ['engines/bedrock'], lazily: true },
  '@smithy/signature-v4': { folders: ['engines/bedrock'], lazily: true },
  ajv: { folders: ['serving'], lazily: true },
  commander: { folders: ['cli'] },
  'csv-parse': { folders: ['server/http'] },
  'eventsource-parser': { folders: ['engines'] },
  hono: { folders: ['server/http'] },
  jose: { folders: ['governance'], lazily: true },
  jsonrepair: { folders: ['serving'], lazily: true },
  lmdb: { folders: ['storage'] },
  'lru-cache': { folders: ['storage', 'serving'] },
  'node-llama-cpp': { folders: ['engines/llama'], lazily: true },
  'onnxruntime-common': { folders: ['engines/onnx'], lazily: true },
  'onnxruntime-node': { folders: ['engines/onnx'], lazily: true },
  pino: { folders: [TOP] },
  'prom-client': { folders: ['server/http'] },
  'string-width': { folders: ['cli'] },
  undici: { folders: ['engines'] },
  yaml: { folders: ['engines/mlflow', 'engines/python'] },
  yauzl: { folders: ['engines/mlflow'], lazily: true },
  zod: { folders: ['config', 'registry', 'governance', 'server/http'] },
};

export const MAX_LINES = 400;

export interface SourceFile {
  /** Below src/, with slashes: `serving/serving.ts`. */
  readonly path: string;
  readonly source: string;
}
export interface Module extends SourceFile {
  readonly imports: readonly ImportStatement[];
}

export function parseModules(files: readonly SourceFile[]): readonly Module[] {
  return files.map((file) => ({ ...file, imports: findImports(file.source) }));
}

/** The one file whose business it is to load code that is not ours: the thread of an agent. */
const LOADS_OTHERS = 'engines/module/agent-worker.ts';

/** One readable line for each broken rule; none when the house is in order. */
export function findViolations(modules: readonly Module[]): string[] {
  const paths = new Set(modules.map(({ path }) => path));
  return modules.flatMap((module) => [...importViolations(module, paths), ...shapeViolations(module)]);
}

export function floorOf(path: string): string | undefined {
  // The tour is a user of the application, tracing and workers stand around it; none of them is a part of it.
  if (!path.includes('/') || /^(demo|telemetry|workers)\//.test(path)) return TOP;
  return Object.keys(FLOORS).find((floor) => path.startsWith(`${floor}/`));
}

function importViolations(module: Module, paths: ReadonlySet<string>): string[] {
  const found: string[] = [];
  const floor = floorOf(module.path);
  if (floor === undefined) return [`${module.path}: this folder is no floor; see docs/architecture.md`];
  for (const statement of module.imports) {
    const say = (problem: string) => found.push(`${module.path}:${statement.line}: ${problem}`);
    const { specifier, kind } = statement;
    if (specifier === null && module.path === LOADS_OTHERS) continue;
    if (specifier === null) say('import() of something that is not a plain text cannot be checked');
    else if (specifier.startsWith('node:')) continue;
    else if (!/^[.#]/.test(specifier)) checkBorder(specifier, kind, module.path, floor, say);
    else if (kind !== 'url' || specifier.endsWith('.ts')) checkOwn(specifier, module.path, floor, paths, say);
  }
  return found;
}

function checkOwn(
  specifier: string,
  from: string,
  floor: string,
  paths: ReadonlySet<string>,
  say: (problem: string) => void,
): void {
  const isAcross = specifier.startsWith('#');
  const to = isAcross ? specifier.slice(1) : posix.join(posix.dirname(from), specifier);
  if (!specifier.endsWith('.ts')) say(`'${specifier}' must end with .ts`);
  else if (!paths.has(to)) say(`'${specifier}' does not exist`);
  const target = floorOf(to);
  if (target === floor) {
    if (isAcross) say(`'${specifier}' is on the same floor: write it relatively`);
    return;
  }
  if (!isAcross) say(`'${specifier}' crosses a floor: write it as #${to}`);
  if (floor === TOP) return;
  if (target === undefined || !FLOORS[floor]?.includes(target))
    say(`${floor} may not import ${target ?? to}`);
  else if (target === 'storage' && DOORS.includes(floor) && !STORAGE_FOR_DOORS.includes(to)) {
    say(`a door may import only ${STORAGE_FOR_DOORS.join(', ')} of storage, not ${to}`);
  }
}

function checkBorder(
  specifier: string,
  kind: ImportStatement['kind'],
  path: string,
  floor: string,
  say: (problem: string) => void,
): void {
  const name = specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
  const border = BORDERS[name];
  if (!border) {
    say(
      `package '${name}' has no border yet: add it to test/check/floors.ts and to docs/decisions/0003-dependencies.md`,
    );
    return;
  }
  // The top floor names types of every package (the library takes a DuckDBConnection), but runs only its own.
  const isAtHome = border.folders.some((folder) =>
    folder === TOP ? floor === TOP : path.startsWith(`${folder}/`),
  );
  if (!isAtHome && !(floor === TOP && kind === 'type'))
    say(`package '${name}' stops at ${border.folders.join(', ')}`);
  if (border.lazily && kind === 'static')
    say(`package '${name}' is heavy or optional: load it with import() where it is used`);
}

function shapeViolations({ path, source }: Module): string[] {
  const found: string[] = [];
  const lines = source.split('\n');
  const header = lines.findIndex((line) => !line.startsWith('//'));
  if (header === 0) found.push(`${path}: begins without a comment that says what it is for`);
  if (header > 4) found.push(`${path}: the comment at the beginning has ${header} lines; four are enough`);
  const lineCount = source.endsWith('\n') ? lines.length - 1 : lines.length;
  if (lineCount > MAX_LINES) found.push(`${path}: has ${lineCount} lines, more than ${MAX_LINES}`);
  if (!/^(?:[a-z0-9]+(?:-[a-z0-9]+)*\/)*[a-z0-9]+(?:-[a-z0-9]+)*\.ts$/.test(path))
    found.push(`${path}: the name is not kebab-case`);
  const words = /(?:^|[/-])(manager|helpers?|utils?|common|misc|base|impl|service|handler)(?=[-./])/.exec(
    path,
  );
  if (words) found.push(`${path}: '${words[1]}' says nothing about what is inside`);
  const tokens = tokenizeCode(source);
  for (const [index, { kind, value }] of tokens.entries()) {
    const next = tokens[index + 1];
    if (kind !== 'name') continue;
    if (value === 'export' && next?.value === 'default') found.push(`${path}: has a default export`);
    const isDeclaration = next?.kind === 'name' && tokens[index + 2]?.value === '{';
    if ((value === 'enum' || value === 'namespace') && isDeclaration)
      found.push(`${path}: has an ${value} ('${next.value}')`);
  }
  return found;
}
