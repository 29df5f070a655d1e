import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import type { StatementResult } from '../../src/cli/deps.ts';
import { runCli } from '../../src/cli/program.ts';
import { cli, fakeDeps, progressOf, rowsResult } from './fake-app.ts';

const scratch = () => mkdtempSync(join(tmpdir(), 'duckserve-cli-'));
const ONE_ROW = rowsResult([['answer', 'INTEGER']], [[42]]);

describe('sql', () => {
  const run = async () => [ONE_ROW];

  it('takes SQL from the argument, a file or standard input, in memory unless --db names a file', async () => {
    const file = join(scratch(), 'q.sql');
    writeFileSync(file, '\ufeffSELECT 2');
    const outcomes = await Promise.all([
      cli(['sql', 'SELECT 1'], { run }),
      cli(['sql', '-f', file, '--db', 'x.duckdb'], { run }),
      cli(['sql'], { run, stdin: 'SELECT 3' }),
      cli(['sql', '-'], { run, stdin: ['SELECT', ' 4'] }),
    ]);
    expect(outcomes.map(({ asked }) => asked[0]?.[1])).toEqual([
      'SELECT 1',
      'SELECT 2',
      'SELECT 3',
      'SELECT 4',
    ]);
    expect(outcomes.map(({ opened }) => opened[0]?.dbPath)).toEqual([
      ':memory:',
      resolve('x.duckdb'),
      ':memory:',
      ':memory:',
    ]);
    const missing = await cli(['sql', '-f', 'no-such.sql']);
    expect([missing.code, missing.stderr]).toEqual([
      1,
      'error: Cannot read SQL from no-such.sql: there is no such file. [NOT_FOUND]\n',
    ]);
    expect((await cli(['sql', ' -- nothing'])).stderr).toBe('error: The SQL is empty. [BAD_REQUEST]\n');
  });

  it('hands on limits and the cache mode, and no budget where no limit is given', async () => {
    const limited = await cli(
      ['sql', 'Q', '--max-calls', '0', '--max-tokens', '5', '--max-cost', '0.25', '--cache', 'off'],
      { run },
    );
    expect(limited.asked[0]).toEqual(['run', 'Q', 'off', { maxCalls: 0, maxTokens: 5, maxCost: 0.25 }]);
    expect((await cli(['sql', 'Q'], { run })).asked[0]).toEqual(['run', 'Q', undefined, undefined]);
  });

  it('prints rows to standard output and everything else to standard error', async () => {
    const outcome = await cli(['sql', 'Q', '--format', 'csv'], {
      run: async (_sql, { onProgress }) => {
        onProgress?.(
          progressOf({ answered: 15, total: 15, failed: 1, tokens: 1234, cost: 0.0012, isFinal: true }),
        );
        return [
          { ...ONE_ROW, kind: 'changed', changedRows: 3 },
          { ...ONE_ROW, calls: { asked: 12, cached: 3, passes: 2 } },
        ];
      },
    });
    expect(outcome).toMatchObject({
      code: 0,
      stdout: 'answer\n42\n',
      stderr: '3 rows changed\n12 model calls, 3 from the answer store, 2 passes\n',
    });
  });

  it('writes rows to a file with -o, and leaves the file alone when the query fails', async () => {
    const file = join(scratch(), 'out.csv');
    writeFileSync(file, 'before');
    await cli(['sql', 'Q', '--format', 'csv', '-o', file], {
      run: async () => Promise.reject(new ServingError('SQL_ERROR', 'no')),
    });
    expect(readFileSync(file, 'utf8')).toBe('before');
    const outcome = await cli(['sql', 'Q', '--format', 'csv', '-o', file], { run });
    expect([outcome.code, outcome.stdout, readFileSync(file, 'utf8')]).toEqual([0, '', 'answer\n42\n']);
    const nowhere = await cli(['sql', 'Q', '-o', join(file, 'x')], { run });
    expect([nowhere.code, nowhere.stderr]).toEqual([1, expect.stringContaining('[STORAGE_ERROR]')]);
  });

  it('has DuckDB write Parquet, one result a file', async () => {
    const copied: string[] = [];
    const result: StatementResult = {
      ...ONE_ROW,
      copyTo: async (path, format) => void copied.push(`${format} ${path}`),
    };
    const one = await cli(['sql', 'Q', '--format', 'parquet', '-o', '/x/y.parquet'], {
      run: async () => [result],
    });
    expect([one.code, one.stdout, copied]).toEqual([0, '', ['parquet /x/y.parquet']]);
    const two = await cli(['sql', 'Q', '--format', 'parquet', '-o', '/x/y.parquet'], {
      run: async () => [result, result],
    });
    expect([two.code, two.stderr]).toEqual([1, expect.stringContaining('A Parquet file holds one result')]);
  });

  it('cancels on the first Ctrl-C and ends with 130; a second one finds no listener and kills', async () => {
    const { deps, signals, stderr } = fakeDeps({
      run: async (_sql, { signal }) =>
        await new Promise((_, reject) => {
          signal?.addEventListener('abort', () =>
            reject(new ServingError('SQL_ERROR', 'INTERRUPT Error: Interrupted!')),
          );
          signals.emit('SIGINT');
        }),
    });
    expect(await runCli(['sql', 'Q'], deps)).toBe(130);
    expect(signals.listenerCount('SIGINT')).toBe(0);
    expect(stderr.text).toBe('error: The statement was cancelled. [CANCELLED]\n');
  });

  it('ends quietly when the reader of its output goes away', async () => {
    const stdout = new Writable({
      write: (_chunk, _encoding, done) => done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })),
    });
    const many = rowsResult(
      [['n', 'BIGINT']],
      Array.from({ length: 50_000 }, (_, index) => [index]),
    );
    const outcome = await cli(['sql', 'Q', '--format', 'csv'], { stdout, run: async () => [many] });
    expect([outcome.code, outcome.stderr]).toEqual([0, '']);
  });

  it('waits for a slow reader instead of filling memory', async () => {
    let inFlight = 0;
    let most = 0;
    let bytes = 0;
    const stdout = new Writable({
      highWaterMark: 1,
      write(chunk: Buffer, _encoding, done) {
        inFlight += chunk.length;
        most = Math.max(most, inFlight + stdout.writableLength);
        setImmediate(() => {
          inFlight -= chunk.length;
          bytes += chunk.length;
          done();
        });
      },
    });
    const row = ['x'.repeat(1000)];
    const many: StatementResult = {
      ...rowsResult([['t', 'VARCHAR']], []),
      rowCount: 5000,
      rows: () => Array.from({ length: 5000 }, () => row).values(),
    };
    expect((await cli(['sql', 'Q', '--format', 'jsonl'], { stdout, run: async () => [many] })).code).toBe(0);
    expect(bytes).toBeGreaterThan(5_000_000);
    expect(most).toBeLessThan(200_000);
  });

  it('shows progress on a terminal only', async () => {
    const run = async (
      _sql: string,
      { onProgress }: { onProgress?: (p: ReturnType<typeof progressOf>) => void },
    ) => {
      onProgress?.(progressOf({ answered: 1, total: 4 }));
      onProgress?.(progressOf({ answered: 4, total: 4, elapsedMs: 50, isFinal: true }));
      return [ONE_ROW];
    };
    expect((await cli(['sql', 'Q'], { run, isTty: true })).stderr).toContain('1/4 calls');
    expect((await cli(['sql', 'Q'], { run })).stderr).toBe('');
  });
});

describe('estimate', () => {
  const estimate = {
    calls: 10,
    cached: 2,
    inputTokens: 1500,
    cost: 0.25,
    seconds: null,
    unknown: 'The second pass is not known yet.',
    endpoints: [
      { endpoint: 'e', model: 'm', calls: 10, cached: 2, inputTokens: 1500, cost: 0.25, seconds: null },
    ],
  };

  it('prints JSON with the names scripts rely on', async () => {
    const outcome = await cli(['estimate', 'SELECT 1', '--format', 'json'], { estimate });
    const { endpoints, ...all } = JSON.parse(outcome.stdout) as Record<string, unknown>;
    expect(all).toEqual({
      calls: 10,
      cached: 2,
      input_tokens: 1500,
      cost: 0.25,
      seconds: null,
      unknown: 'The second pass is not known yet.',
    });
    expect(endpoints).toEqual([
      { endpoint: 'e', model: 'm', calls: 10, cached: 2, input_tokens: 1500, cost: 0.25, seconds: null },
    ]);
  });

  it('prints a table with what cannot be known beside it', async () => {
    const outcome = await cli(['estimate', 'SELECT 1'], { estimate });
    expect(outcome.stdout).toContain(
      '│ e        │ m     │    10 │      2 │        1,500 │ $0.25 │ unknown │',
    );
    expect(outcome.stderr).toBe('The second pass is not known yet.\n');
  });
});
