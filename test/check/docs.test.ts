// The documentation says what the code does: links lead somewhere, examples run, and what is listed exists.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { afterAll, describe, expect, it } from 'vitest';
import { type CliDeps, createProgram } from '#cli/program.ts';
import { LOCAL_OWNER } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { ENGINE_KINDS } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { FUNCTION_DOCS } from '#functions/functions.ts';
import { Identity } from '#governance/identity/identity.ts';
import { createHttpApp } from '#server/http/app.ts';
import type { HttpDeps } from '#server/http/deps.ts';
import { createCommands } from '../../src/app-commands.ts';
import { createSystemTables } from '../../src/app-tables.ts';
import { brokenLinks, codeBlocks, headings, prose, ROOT, readDocument, readDocuments } from './markdown.ts';

const documents = readDocuments();

describe('all documents', () => {
  it('have no link that leads nowhere', () => {
    expect(brokenLinks(documents)).toEqual([]);
  });

  it('close every code block and name its language', () => {
    for (const document of documents) {
      expect((document.text.match(/^```/gm) ?? []).length % 2, document.path).toBe(0);
      for (const { info, line } of codeBlocks(document))
        expect(info, `${document.path}:${line}`).not.toBe('');
    }
  });

  it('name no path of a machine', () => {
    for (const { path, text } of documents)
      expect(text, path).not.toMatch(/(?:^|[\s'"(`])\/(?:home|work|root|Users|tmp)\//m);
  });

  it('are all reached from README.md or docs/README links', () => {
    const linked = new Set(
      documents.flatMap(({ path, text }) =>
        [...text.matchAll(/\]\(([^)#\s]+\.md)/g)].map(([, target]) => join(path, '..', target ?? '')),
      ),
    );
    const unreached = documents
      .map(({ path }) => path)
      .filter((path) => path !== 'README.md' && !linked.has(path));
    expect(unreached).toEqual([]);
  });

  it('tell the ways in exactly once: the two commands of the README', () => {
    const commands = codeBlocks(readDocument('README.md')).filter(({ code }) =>
      /^npm ci && npm (run demo|test)$/.test(code),
    );
    expect(commands.map(({ code }) => code)).toEqual(['npm ci && npm run demo', 'npm ci && npm test']);
  });
});

const registry = {} as Parameters<typeof createCommands>[0]['registry'];
const answers = {} as Parameters<typeof createCommands>[0]['answers'];
const commands = createCommands({ registry, answers });

describe('docs/sql.md', () => {
  const document = readDocument('docs/sql.md');
  const titles = (level: number, below: string) => {
    const section = headings(document).find(({ level: at, title }) => at === level - 1 && title === below);
    return headings({ path: '', text: section?.body ?? '' }).flatMap(({ level: at, title }) =>
      at === level ? [title.replaceAll('`', '')] : [],
    );
  };

  it('has a section for every public function, and none for one that does not exist', () => {
    expect(titles(3, 'Functions').sort()).toEqual(FUNCTION_DOCS.map(({ name }) => name).sort());
  });

  it('lists every command with its parameters, and none that does not exist', () => {
    const rows = [...document.text.matchAll(/^\| `CALL duckserve_(\w+)\(([^)]*)\)`/gm)].map(
      ([, name, list]) => `${name}: ${list}`,
    );
    expect(rows.sort()).toEqual(
      commands.map(({ name, parameters }) => `${name}: ${parameters.join(', ')}`).sort(),
    );
  });

  it('lists every system table with its columns, and none that does not exist', () => {
    const tables = createSystemTables({
      ...{ listEndpoints: () => [], listModels: () => [], replicasOf: () => undefined, answers, commands },
    });
    const rows = [...document.text.matchAll(/^\| `duckserve\.(\w+)` \| (.*?) \|/gm)].map(
      ([, name, list]) => `${name}: ${(list ?? '').replaceAll('`', '')}`,
    );
    const usage =
      /CREATE TABLE duckserve\.main\.usage \(([\s\S]*?)\n\);/.exec(
        readFileSync(join(ROOT, 'sql/migrations/0001_registry_and_usage.sql'), 'utf8'),
      )?.[1] ?? '';
    const usageColumns = [...usage.matchAll(/^\s+(\w+) /gm)].map(([, column]) => column);
    expect(rows.sort()).toEqual(
      [
        ...tables.map(({ name, columns }) => `${name}: ${columns.map((column) => column.name).join(', ')}`),
        `usage: ${usageColumns.join(', ')}`,
      ].sort(),
    );
  });
});

describe('docs/cli.md', () => {
  const document = readDocument('docs/cli.md');
  const verbs = (command: Command): Command[] => [
    command,
    ...command.commands.flatMap((inner) => verbs(inner)),
  ];
  const nameOf = (command: Command | null): string =>
    command?.parent ? `${nameOf(command.parent)} ${command.name()}` : (command?.name() ?? '');
  const quiet = { write: () => true } as unknown as NodeJS.WritableStream;
  const io = {
    stdout: quiet,
    stderr: quiet,
    stdin: process.stdin,
    isStdoutTty: false,
    isStderrTty: false,
    columns: 80,
  };
  const all = verbs(createProgram({ io, version: '0', env: {} } as unknown as CliDeps)).slice(1);
  const sections = new Map(headings(document).map(({ title, body }) => [title.replaceAll('`', ''), body]));

  it('has a section for every verb, and none for one that does not exist', () => {
    const documented = [...sections.keys()].filter((title) => title.startsWith('duckserve '));
    expect(documented.sort()).toEqual(all.map((command) => nameOf(command)).sort());
  });

  it('says every option of every verb, and none that it does not take', () => {
    const common = ['--data', '--verbose', '--help'];
    for (const command of all) {
      const name = nameOf(command);
      const own = command.options.map(({ long }) => long ?? '').filter((long) => !common.includes(long));
      // A group's own section ends where those of its verbs begin.
      const body = (sections.get(name) ?? '').split(/^#/m)[0] ?? '';
      const said = [
        ...new Set([...body.matchAll(/(?<![\w-])--[a-z][a-z0-9-]+/g)].map(([long]) => long)),
      ].filter((long) => !common.includes(long));
      expect(said.sort(), name).toEqual(own.sort());
    }
  });
});

describe('the environment', () => {
  it('has every variable of ours in docs/cli.md, and none that is not read', () => {
    const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).filter((path) =>
      path.endsWith('.ts'),
    );
    const read = sources.flatMap(
      (path) => readFileSync(join(ROOT, 'src', path), 'utf8').match(/\bDUCKSERVE_[A-Z_]+\b/g) ?? [],
    );
    const documented = [...readDocument('docs/cli.md').text.matchAll(/^\| `(DUCKSERVE_[A-Z_]+)`/gm)].map(
      ([, name]) => name,
    );
    expect(documented.sort()).toEqual([...new Set(read)].sort());
  });
});

describe('docs/http.md', () => {
  const document = readDocument('docs/http.md');
  const deps = {
    serving: { onUsage: () => {}, queueDepths: () => [] },
    log: SILENT_LOG,
    identity: new Identity({ store: { transact: async () => {} }, clock: SYSTEM_CLOCK, env: {} }),
    version: '0',
  } as unknown as HttpDeps;
  const app = createHttpApp(deps);

  it('lists every route, and none that does not exist', () => {
    const routes = app.routes
      .filter(({ method }) => method !== 'ALL')
      .map(({ method, path }) => `${method} ${path.replace(/\/:(\w+)/g, '/{$1}')}`);
    const documented = [...document.text.matchAll(/^\| `(GET|POST|PUT|PATCH|DELETE) ([^`]+)`/gm)].map(
      ([, method, path]) => `${method} ${path}`,
    );
    expect(documented.sort()).toEqual([...new Set(routes)].sort());
  });

  it('lists every metric of ours with its labels, and none that does not exist', async () => {
    const response = await app.request('/metrics', { headers: { host: 'localhost' } });
    const exposed = [...(await response.text()).matchAll(/^# HELP ((?:duckserve|gen_ai)_\w+)/gm)].map(
      ([, name]) => name,
    );
    const monitoring = readDocument('docs/monitoring.md').text;
    const documented = [...monitoring.matchAll(/^\| `((?:duckserve|gen_ai)_\w+)`/gm)].map(([, name]) => name);
    expect(documented.sort()).toEqual(exposed.sort());
  });
});

describe('docs/engines.md', () => {
  const document = readDocument('docs/engines.md');

  it('has a section for every kind of engine', () => {
    const titles = headings(document).map(({ title }) => title.replaceAll('`', ''));
    for (const kind of ENGINE_KINDS) expect(titles).toContain(kind);
  });

  it('shows the example engine as it stands in test/check/example-engine.ts, where it is compiled and tested', () => {
    const [block] = codeBlocks(document).filter(({ info }) => info === 'ts example');
    expect(block?.code).toBe(readFileSync(join(ROOT, 'test/check/example-engine.ts'), 'utf8').trimEnd());
  });
});

describe('docs/coverage.md', () => {
  it('names only files that exist', () => {
    const paths = [
      ...prose(readDocument('docs/coverage.md')).matchAll(
        /`((?:src|test|bench|scripts|sql|examples|docs|bin|assets|\.ci)\/[^`*]+)`/g,
      ),
    ];
    const missing = paths.map(([, path]) => path ?? '').filter((path) => !existsSync(join(ROOT, path)));
    expect(paths.length).toBeGreaterThan(20);
    expect(missing).toEqual([]);
  });
});

describe('the statements in the documentation', () => {
  const folder = mkdtempSync(join(tmpdir(), 'duckserve-docs-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it.each(['README.md', 'docs/tutorial.md', 'docs/sql.md'])(
    'run as they stand in %s, and give the results that stand below them',
    async (path) => {
      const blocks = codeBlocks(readDocument(path));
      const { openApp } = await import('../../src/app.ts');
      const app = await openApp({
        dataDir: join(folder, path.replaceAll('/', '-')),
        dbPath: ':memory:',
        notify: () => {},
      });
      try {
        const session = await app.openSession({ principal: LOCAL_OWNER, origin: 'library' });
        for (const [index, { info, code, line }] of blocks.entries()) {
          if (info !== 'sql run') continue;
          const results = await session.run(code).catch((error: unknown) => {
            throw new Error(`${path}:${line}: ${error instanceof Error ? error.message : String(error)}`, {
              cause: error,
            });
          });
          const next = blocks[index + 1];
          if (next?.info !== 'csv result') continue;
          const last = results.at(-1);
          const rows = [last?.columns.map(({ name }) => name) ?? [], ...(last?.rows() ?? [])];
          expect(rows.map((row) => row.map(cell).join(',')).join('\n'), `${path}:${next.line}`).toBe(
            next.code,
          );
        }
        await session.close();
      } finally {
        await app.close();
      }
    },
  );

  function cell(value: unknown): string {
    return typeof value === 'string' ? value : JSON.stringify(value);
  }
});
