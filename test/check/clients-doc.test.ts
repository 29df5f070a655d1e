// The table of docs/clients.md is what test/clients runs: each row is a test, each test a row, each Python test a call
// that its script makes, each version the one that is installed. Whether the tests pass is for `npm run test:clients`.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PYTHON_PACKAGES } from '../clients/packages.ts';
import { ROOT, readDocument } from './markdown.ts';

const FOLDER = join(ROOT, 'test', 'clients');
const NODE_PACKAGES = (
  JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { devDependencies: Record<string, string> }
).devDependencies;
/** Titles that name no member of a client. */
const NO_MEMBER = ['errors', 'tokens'];

interface ClientTests {
  readonly file: string;
  /** The title of the `describe`: `openai (Python)`. */
  readonly client: string;
  /** Titles of the tests: `call: what is checked`. */
  readonly titles: readonly string[];
  readonly source: string;
  /** The Python script it runs. */
  readonly script: string | undefined;
}

const tests: readonly ClientTests[] = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.test.ts'))
  .sort()
  .map((file) => {
    const source = readFileSync(join(FOLDER, file), 'utf8');
    const script = /runScript\('(\w+\.py)'\)/.exec(source)?.[1];
    return {
      file,
      client: /^describe\('([^']+)'/m.exec(source)?.[1] ?? '',
      titles: [...source.matchAll(/^ {2}it\('([^']+)'/gm)].map(([, title]) => title ?? ''),
      source,
      script: script && readFileSync(join(FOLDER, script), 'utf8'),
    };
  });

function versionOf(client: string): string {
  const [, packages = '', language] = /^(.+) \((Node|Python)\)$/.exec(client) ?? [];
  const versions = language === 'Node' ? NODE_PACKAGES : PYTHON_PACKAGES;
  return packages
    .split(' with ')
    .map((name) => versions[name] ?? `no version of ${name}`)
    .join(' with ');
}

describe('docs/clients.md', () => {
  it('has a row for every test of a client, with its version, and no other', () => {
    const rows = [
      ...readDocument('docs/clients.md').text.matchAll(/^\| (.+) \| (\d.*) \| `(.+)` \| (.+) \|$/gm),
    ];
    const documented = rows.map(([, client, version, call, what]) => `${client} ${version} ${call}: ${what}`);
    const existing = tests.flatMap(({ client, titles }) =>
      titles.map((title) => `${client} ${versionOf(client)} ${title}`),
    );
    expect(existing.length).toBeGreaterThan(100);
    expect(documented).toEqual(existing);
  });
});

describe('the tests of clients', () => {
  it('are found by their titles, all of them', () => {
    for (const { file, source, titles, client } of tests) {
      expect(client, file).not.toBe('');
      expect(source.match(/\bit(\.\w+)*\(/g)?.length, file).toBe(titles.length);
      expect(new Set(titles.map((title) => title.split(': ', 1)[0])).size, file).toBe(titles.length);
    }
  });

  it('of Python are the calls that the scripts make, one for one', () => {
    for (const { file, script, titles } of tests) {
      if (script === undefined) continue;
      const made = [...script.matchAll(/^@call\("(.+)"\)$/gm)].map(([, call]) => call);
      expect(made, file).toEqual(titles.map((title) => title.split(': ', 1)[0]));
    }
  });

  it('use the member of the client that the title names', () => {
    for (const { file, source, script, titles } of tests) {
      const code = (script ?? source).replace(/^@call\(.*$/gm, '').replace(/^ {2}it\('.*$/gm, '');
      for (const title of titles) {
        const [name = ''] = title.split(/[:(]/, 1);
        if (NO_MEMBER.includes(name)) continue;
        const member = /\w+$/.exec(name)?.[0] ?? name;
        expect(new RegExp(`\\b${member}\\b`).test(code), `${file}: ${title}`).toBe(true);
      }
    }
  });

  it('skip no client by themselves', () => {
    for (const { file, source } of tests) expect(source, file).not.toMatch(/\.(skip|todo|only)\b/);
  });
});
