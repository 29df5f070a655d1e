// duckserve inside another Node program: with nothing on disk, and over a DuckDB connection the program has.
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterEach, describe, expect, it } from 'vitest';
import { packageRoot } from '#storage/package-root.ts';
import { type ChatOutput, type Duckserve, openDuckserve, ServingError } from '../../src/index.ts';
import { stubChatText } from '../stub/answers.ts';
import { PENGUINS, stubSpec, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

async function open(options: Parameters<typeof openDuckserve>[0] = {}): Promise<Duckserve> {
  const duckserve = await openDuckserve({ dataDir: ':memory:', env: {}, notify: () => {}, ...options });
  workplace.onClear(() => duckserve.close());
  return duckserve;
}

const question = (content: string) => ({ messages: [{ role: 'user' as const, content }] });
const contentOf = (output: unknown) => (output as ChatOutput).content;

describe('openDuckserve in memory', () => {
  it('invokes an endpoint with many inputs and gives their answers in order, failures as values', async () => {
    const stub = await workplace.stub({
      answer: (body) =>
        JSON.stringify(body).includes('poison')
          ? { status: 400, body: { error: { message: 'no poison', type: 'invalid_request_error' } } }
          : undefined,
    });
    const duckserve = await open();
    await duckserve.registry.createEndpoint(stubSpec('llm', stub), {
      id: 'me',
      name: 'me',
      kind: 'user',
      isAdmin: true,
    });
    const answer = await duckserve.invoke('llm', 'llm/v1/chat', ['a', 'poison', 'c'].map(question));
    expect(answer.items.map((item) => (item.ok ? contentOf(item.output) : item.error.code))).toEqual([
      stubChatText('a'),
      'UPSTREAM_REJECTED',
      stubChatText('c'),
    ]);
    expect(answer.usage.inputTokens).toBe(4);
    await expect(duckserve.invoke('gone', 'llm/v1/chat', [question('x')])).rejects.toBeInstanceOf(
      ServingError,
    );
  });

  it('streams, and keeps to a budget', async () => {
    const duckserve = await open();
    const { target, events } = await duckserve.stream(
      'echo-chat',
      'llm/v1/chat',
      question('word by word by word'),
    );
    expect(target.model).toBe('echo@1');
    let text = '';
    let ends = 0;
    for await (const event of events) {
      if (event.type === 'delta') text += event.text;
      if (event.type === 'end') ends++;
    }
    expect([text, ends]).toEqual(['word by word by word', 1]);
    const budget = duckserve.createBudget({ maxCalls: 1 });
    const asked = await duckserve.invoke('echo-chat', 'llm/v1/chat', [question('1'), question('2')], {
      budget,
    });
    expect(asked.items.map((item) => item.ok || item.error.code)).toEqual([true, 'BUDGET_EXCEEDED']);
  });

  it('runs SQL in one session and leaves nothing on disk, also of the models it registered', async () => {
    const folder = workplace.directory();
    const before = process.cwd();
    workplace.onClear(() => process.chdir(before));
    process.chdir(folder);
    const duckserve = await open();
    await duckserve.sql("CREATE TABLE t AS SELECT ai_query('echo-chat', 'kept') AS said");
    const [result] = await duckserve.sql('FROM t');
    expect([...(result?.rows() ?? [])]).toEqual([['kept']]);
    const [usage] = await duckserve.sql('SELECT count(*) FROM duckserve.usage');
    expect([...(usage?.rows() ?? [])]).toEqual([[1]]);
    const { source } = await duckserve.registry.registerModel(
      'penguins',
      join(PENGUINS, 'penguins.onnx'),
      {},
    );
    const [predicted] = await duckserve.sql("SELECT predict('penguins', 39.1, 18.7, 181, 3750)");
    expect([...(predicted?.rows() ?? [])]).toEqual([['Adelie']]);
    expect(existsSync(source)).toBe(true);
    await duckserve.close();
    expect([existsSync(source), readdirSync(folder)]).toEqual([false, []]);
  });

  it('embeds texts, the same every time', async () => {
    const duckserve = await open();
    const inputs = ['a duck', 'a goose'].map((text) => ({ text }));
    const first = await duckserve.invoke('embedded-static-256', 'llm/v1/embeddings', inputs);
    const again = await duckserve.invoke('embedded-static-256', 'llm/v1/embeddings', inputs);
    expect(first.items).toMatchObject([
      { ok: true, cached: false },
      { ok: true, cached: false },
    ]);
    expect(again.items.map((item) => item.ok && item.output)).toEqual(
      first.items.map((item) => item.ok && item.output),
    );
  });
});

describe('openDuckserve over a connection of the program', () => {
  it('sees its tables, and leaves the connection open after close', async () => {
    const instance = await DuckDBInstance.create(':memory:');
    workplace.onClear(() => instance.closeSync());
    const connection = await instance.connect();
    await connection.run("CREATE TABLE mails AS SELECT 'mail ' || i AS body FROM range(3) t(i)");
    await connection.run("CREATE TEMP TABLE mine AS SELECT 'only here' AS note");
    const duckserve = await open({ connection });
    const [said] = await duckserve.sql("SELECT ai_query('echo-chat', body) FROM mails ORDER BY 1");
    expect([...(said?.rows() ?? [])]).toEqual([['mail 0'], ['mail 1'], ['mail 2']]);
    const [note] = await duckserve.sql("SELECT ai_query('echo-chat', note) FROM mine");
    expect([...(note?.rows() ?? [])]).toEqual([['only here']]);
    await duckserve.sql("CREATE TABLE said AS SELECT ai_query('echo-chat', body) AS said FROM mails");
    const [known] = await duckserve.sql(
      "SELECT count(*) FROM duckserve_endpoints() WHERE name = 'echo-chat'",
    );
    expect([...(known?.rows() ?? [])]).toEqual([[1]]);
    await duckserve.close();

    const reader = await connection.runAndReadAll('SELECT count(*)::INTEGER FROM said');
    expect(reader.getRows()).toEqual([[3]]);
    connection.closeSync();
  });

  it('reads inside a transaction that the program itself began, and leaves it open', async () => {
    const instance = await DuckDBInstance.create(':memory:');
    workplace.onClear(() => instance.closeSync());
    const connection = await instance.connect();
    const duckserve = await open({ connection });
    await connection.run('CREATE TABLE mails (body VARCHAR)');
    await connection.run('BEGIN');
    await connection.run("INSERT INTO mails VALUES ('not committed')");
    const [said] = await duckserve.sql("SELECT ai_query('echo-chat', body) FROM mails");
    expect([...(said?.rows() ?? [])]).toEqual([['not committed']]);
    await expect(
      duckserve.sql("INSERT INTO mails SELECT ai_query('echo-chat', 'new')"),
    ).rejects.toMatchObject({ code: 'AI_IN_TRANSACTION' });
    await connection.run('ROLLBACK');
    await duckserve.sql("INSERT INTO mails SELECT ai_query('echo-chat', 'after')");
    const reader = await connection.runAndReadAll('SELECT body FROM mails');
    expect(reader.getRows()).toEqual([['after']]);
    await duckserve.close();
    connection.closeSync();
  });

  it('has one session at a time there, so that statements cannot mix up their questions', async () => {
    const instance = await DuckDBInstance.create(':memory:');
    workplace.onClear(() => instance.closeSync());
    const duckserve = await open({ connection: await instance.connect() });
    const session = await duckserve.openSession();
    await expect(duckserve.openSession()).rejects.toMatchObject({ code: 'RESOURCE_CONFLICT' });
    await expect(duckserve.sql('SELECT 1')).rejects.toMatchObject({ code: 'RESOURCE_CONFLICT' });
    await session.close();
    const [both, other] = await Promise.all([
      duckserve.sql("SELECT ai_query('echo-chat', 'one')"),
      duckserve.sql("SELECT ai_query('echo-chat', 'two')"),
    ]);
    expect([both, other].map(([result]) => [...(result?.rows() ?? [])])).toEqual([[['one']], [['two']]]);
  });
});

describe('the example', () => {
  it('runs as it is printed, and the second time it asks nothing', async () => {
    const folder = workplace.directory();
    const text = readFileSync(join(packageRoot(), 'examples', 'library', 'summarize.mjs'), 'utf8');
    const entry = JSON.stringify(join(packageRoot(), 'src', 'index.ts'));
    const script = join(folder, 'summarize.mts');
    writeFileSync(script, text.replace("'duckserve'", entry));
    const run = async () =>
      await promisify(execFile)(process.execPath, ['--import', 'tsx', script], {
        cwd: packageRoot(),
        env: { PATH: process.env.PATH, DUCKSERVE_DATA: join(folder, 'data'), UV_THREADPOOL_SIZE: '8' },
      });
    const first = await run();
    expect(first.stdout).toBe(
      '1: Summarize in five words: The printer on the second floor is out of paper again.\n' +
        '2: Summarize in five words: Lunch on Friday? The new place by the pond has good bread.\n' +
        '2 asked, 0 from the answer store\n',
    );
    expect(first.stderr).toMatch(/2 of 2 answered\n$/);
    expect((await run()).stdout).toMatch(/\n0 asked, 2 from the answer store\n$/);
  });
});
