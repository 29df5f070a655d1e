// The program as people and scripts run it: a child process, its output, its exit code, its signals.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from 'vitest';
import { packageRoot } from '#storage/package-root.ts';
import { createStubEndpoint, PENGUINS, rowsOf, until, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

/** The program in a folder of its own; `run` waits for its end. */
function place() {
  const dataDir = workplace.directory();
  const run = (args: readonly string[], input = '') => workplace.run(args, { dataDir, input });
  const sql = (statement: string, ...flags: readonly string[]) => run(['sql', statement, ...flags]);
  return { dataDir, run, sql };
}

const done = (stdout: string | RegExp) => ({
  code: 0,
  signal: null,
  stdout: typeof stdout === 'string' ? stdout : expect.stringMatching(stdout),
});

/** One readable line and the code of the error, nothing on standard output. */
const failed = (line: RegExp) => ({ code: 1, signal: null, stdout: '', stderr: expect.stringMatching(line) });

describe('duckserve sql', () => {
  const TWO = "SELECT i AS id, ai_query('echo-chat', 'mail, ' || i) AS said FROM range(2) t(i)";

  it('prints rows in each format, and they read back the same', async () => {
    const { dataDir, sql } = place();
    const file = join(dataDir, 'said.parquet');
    const inMemory = (...flags: readonly string[]) => sql(TWO, '--data', ':memory:', ...flags);
    const [table, json] = await Promise.all([inMemory(), inMemory('--format', 'json')]);
    expect(table.stdout.split('\n').filter((line) => line.includes('mail'))).toEqual([
      '│      0 │ mail, 0 │',
      '│      1 │ mail, 1 │',
    ]);
    expect(table.stdout).toMatch(/\n2 rows\n$/);
    expect(json).toMatchObject(done('[\n{"id":0,"said":"mail, 0"},\n{"id":1,"said":"mail, 1"}\n]\n'));
    const [jsonl, csv] = await Promise.all([inMemory('--format', 'jsonl'), inMemory('--format', 'csv')]);
    expect(jsonl).toMatchObject(done('{"id":0,"said":"mail, 0"}\n{"id":1,"said":"mail, 1"}\n'));
    expect(csv).toMatchObject(done('id,said\n0,"mail, 0"\n1,"mail, 1"\n'));
    const [markdown, parquet] = await Promise.all([
      inMemory('--format', 'markdown'),
      inMemory('--format', 'parquet', '-o', file),
    ]);
    expect(markdown).toMatchObject(done('| id | said |\n| ---: | --- |\n| 0 | mail, 0 |\n| 1 | mail, 1 |\n'));
    expect(parquet).toMatchObject(done(''));
    const app = await workplace.app({ dataDir: ':memory:' });
    expect(await rowsOf(await app.openSession(), `FROM '${file}'`)).toEqual([
      [0, 'mail, 0'],
      [1, 'mail, 1'],
    ]);
    // With --data :memory: nothing else is left behind.
    expect(readdirSync(dataDir)).toEqual(['said.parquet']);
  });

  it('takes SQL from standard input and from a file, and writes to a database file', async () => {
    const { dataDir, run } = place();
    const file = join(dataDir, 'statements.sql');
    writeFileSync(file, "CREATE TABLE said AS SELECT ai_query('echo-chat', 'kept') AS said;\n");
    const db = join(dataDir, 'mine.duckdb');
    expect(await run(['sql', '--db', db, '-f', file])).toMatchObject(done(''));
    expect(await run(['sql', '--db', db, '--format', 'csv'], 'FROM said; -- and done')).toMatchObject(
      done('said\nkept\n'),
    );
  });

  it('fails with one line that says what was wrong', async () => {
    const { run, sql } = place();
    const [unknownEndpoint, sqlError, unknownCommand, budget] = await Promise.all([
      sql("SELECT ai_query('echo-chatt', 'x')", '--data', 'a'),
      sql('SELECT colour FROM range(3)', '--data', 'b'),
      run(['sequel', 'SELECT 1']),
      sql("SELECT ai_query('echo-chat', 'mail ' || i) FROM range(9) t(i)", '--data', 'c', '--max-calls', '4'),
    ]);
    expect(unknownEndpoint).toMatchObject(
      failed(/^error: There is no endpoint 'echo-chatt'\. .*echo-chat.* \[ENDPOINT_NOT_FOUND\]\n$/),
    );
    expect(sqlError).toMatchObject(failed(/^error: Binder Error: .*"colour".* \[SQL_ERROR\]\n$/));
    expect(unknownCommand).toMatchObject({ code: 2, stdout: '' });
    expect(unknownCommand.stderr).toMatch(
      /^error: unknown command 'sequel'\n\(Did you mean one of serve, sql\?\)\n/,
    );
    expect(budget).toMatchObject(
      failed(
        /^error: The budget is 4 calls: 4 are spent and 1 more would be needed\. .* \[BUDGET_EXCEEDED\]\n$/,
      ),
    );
  });

  it('says in one line who holds a data directory that another process has open', async () => {
    const { dataDir, sql } = place();
    mkdirSync(join(dataDir, 'data'));
    await workplace.app({ dataDir: join(dataDir, 'data') });
    expect(await sql('SELECT 1')).toMatchObject(
      failed(
        new RegExp(
          `^error: The database file .* is in use by another process \\(PID ${process.pid}\\)\\. .* \\[STORAGE_ERROR\\]\n$`,
        ),
      ),
    );
  });

  it('is silent about progress when it is piped, and says in the end what was asked', async () => {
    const { sql } = place();
    const outcome = await sql(
      "SELECT count(ai_query('echo-chat', 'mail ' || i)) AS n FROM range(500) t(i)",
      '--format',
      'csv',
    );
    expect(outcome).toEqual({
      code: 0,
      signal: null,
      stdout: 'n\n500\n',
      stderr: expect.stringMatching(/^500 model calls, 0 from the answer store, 2 passes, [\d,]+ tokens\n$/),
    });
  });

  it('is cancelled by SIGINT with exit code 130, and hangs up on the provider', async () => {
    const stub = await workplace.stub({ latencyMs: 60_000 });
    const { dataDir } = place();
    const create = `CALL duckserve_create_endpoint('slow', task => 'llm/v1/chat', provider => 'openai', model => 'm',
                                                   base_url => '${stub.openaiUrl}', max_concurrency => 8);`;
    const program = workplace.program(
      ['sql', `${create} SELECT ai_query('slow', 'mail ' || i) FROM range(100) t(i)`, '--format', 'jsonl'],
      { dataDir },
    );
    await program.until(() => stub.ledger().inFlight > 0);
    program.child.kill('SIGINT');
    expect(await program.ended).toMatchObject({
      code: 130,
      stderr: 'error: The statement was cancelled. [CANCELLED]\n',
    });
    await until(() => stub.ledger().inFlight === 0);
    const { requests, aborted } = stub.ledger();
    expect(aborted).toBe(requests);
    expect(requests).toBeLessThanOrEqual(8);
  });

  it('ends quietly when its reader goes away', async () => {
    const dataDir = workplace.directory();
    const launcher = join(packageRoot(), 'bin', 'duckserve.cjs');
    // The reader takes two lines of two million.
    const line = `"$0" "$1" sql 'SELECT * FROM range(2000000)' --format jsonl | head -n 2; echo "code \${PIPESTATUS[0]}"`;
    const shell = spawn('bash', ['-c', line, process.execPath, launcher], {
      cwd: dataDir,
      env: { PATH: process.env.PATH, DUCKSERVE_DATA: dataDir },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [stdout, stderr] = await Promise.all([
      text(shell.stdout),
      text(shell.stderr),
      once(shell, 'close'),
    ]);
    expect({ stdout, stderr }).toEqual({ stdout: '{"range":0}\n{"range":1}\ncode 0\n', stderr: '' });
  });
});

describe('duckserve estimate', () => {
  it('gives programs the numbers as JSON and asks nothing', async () => {
    const stub = await workplace.stub();
    const { dataDir, run, sql } = place();
    const app = await workplace.app({ dataDir: join(dataDir, 'data') });
    await createStubEndpoint(app, 'llm', stub, { price: { inputPerMillion: 1, outputPerMillion: 2 } });
    await app.close();
    const ask = "SELECT ai_query('llm', 'mail ' || i) FROM range(40) t(i)";
    const estimate = await run(['estimate', ask, '--format', 'json']);
    expect(estimate).toMatchObject({ code: 0, stderr: '' });
    const numbers = {
      calls: 40,
      cached: 0,
      input_tokens: expect.any(Number),
      cost: expect.any(Number),
      seconds: null,
    };
    expect(JSON.parse(estimate.stdout)).toEqual({
      ...numbers,
      unknown: null,
      endpoints: [{ endpoint: 'llm', model: 'stub', ...numbers }],
    });
    expect(stub.ledger().requests).toBe(0);
    const outcome = await sql(ask, '--max-cost', '5', '--format', 'csv');
    expect(outcome).toMatchObject({ code: 0, signal: null });
    expect(outcome.stderr).toMatch(
      /^40 model calls, 0 from the answer store, 2 passes, \d+ tokens, \$0\.0\d+\n$/,
    );
    expect(stub.ledger().requests).toBe(40);
  });
});

describe('duckserve endpoints and models', () => {
  it('create, list, show and delete an endpoint, and a key is never needed in the clear', async () => {
    const { run } = place();
    // biome-ignore format: one flag and its value belong together
    const flags = ['--task', 'llm/v1/chat', '--provider', 'openai', '--model', 'gpt-4o-mini'];
    const create = (key: string) => run(['endpoints', 'create', 'llm', ...flags, '--api-key-env', key]);
    const [plain, created] = await Promise.all([create('sk-abc'), create('MY_KEY')]);
    expect(plain).toMatchObject({ code: 2, stdout: '' });
    expect(plain.stderr).not.toContain('sk-abc');
    expect(created).toMatchObject({
      code: 0,
      stderr: 'Created endpoint llm (llm/v1/chat, gpt-4o-mini).\n',
    });
    const list = JSON.parse((await run(['endpoints', 'list', '--format', 'json'])).stdout) as {
      name: string;
    }[];
    expect(list.map(({ name }) => name)).toContain('llm');
    const shown = JSON.parse((await run(['endpoints', 'get', 'llm', '--format', 'json'])).stdout);
    expect(shown).toMatchObject({
      name: 'llm',
      served_entities: [{ external_model: { api_key: '{{env/MY_KEY}}', provider: 'openai' } }],
    });
    expect(await run(['endpoints', 'delete', 'llm'])).toMatchObject({ code: 0, stdout: '' });
    expect(await run(['endpoints', 'get', 'llm'])).toMatchObject(
      failed(/^error: There is no endpoint 'llm'/),
    );
  });

  it('register a model that SQL then predicts with', async () => {
    const { run, sql } = place();
    const model = join(PENGUINS, 'penguins.onnx');
    expect(await run(['models', 'register', 'penguins', model, '--alias', 'champion'])).toMatchObject({
      code: 0,
      stderr: 'Registered penguins version 1 (onnx, predict, alias champion).\n',
    });
    const models = JSON.parse((await run(['models', 'list', '--format', 'json'])).stdout) as {
      name: string;
    }[];
    expect(models.find(({ name }) => name === 'penguins')).toMatchObject({
      aliases: { champion: '1' },
      versions: [
        { version: '1', engine: 'onnx', signature: { outputs: [{ name: 'species', type: 'string' }] } },
      ],
    });
    expect(
      await sql("SELECT predict('penguins', 39.1, 18.7, 181, 3750) AS species", '--format', 'csv'),
    ).toMatchObject(done('species\nAdelie\n'));
  });
});
