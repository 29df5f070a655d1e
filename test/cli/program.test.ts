import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { runCli } from '../../src/cli/program.ts';
import { errorText } from '../../src/cli/report-error.ts';
import { cli, fakeDeps } from './fake-app.ts';

describe('using the command line', () => {
  it('prints help without arguments and ends with 0; help and version are no mistake', async () => {
    const bare = await cli([]);
    expect([bare.code, bare.stderr]).toEqual([0, '']);
    expect(bare.stdout).toContain('Usage: duckserve');
    expect((await cli(['sql', '--help'])).code).toBe(0);
    const version = await cli(['--version']);
    expect([version.code, version.stdout]).toEqual([0, '1.2.3\n']);
  });

  it('suggests what was meant and ends with 2 for unknown commands, options and values', async () => {
    const unknown = await cli(['endpoint']);
    expect([unknown.code, unknown.stdout]).toEqual([2, '']);
    expect(unknown.stderr).toContain("error: unknown command 'endpoint'\n(Did you mean endpoints?)");
    const nested = await cli(['endpoints', 'crate', 'x']);
    expect(nested.code).toBe(2);
    expect(nested.stderr).toContain('(Did you mean create?)');
    expect((await cli(['sql', 'SELECT 1', '--formt', 'csv'])).stderr).toContain('(Did you mean --format?)');
    for (const wrong of [
      ['sql', 'SELECT 1', '--format', 'xml'],
      ['sql', 'SELECT 1', '--max-calls', '-1'],
      ['sql', 'SELECT 1', '--max-cost', 'free'],
      ['sql', 'SELECT 1', '--cache', 'maybe'],
      ['sql', 'SELECT 1', '--format', 'parquet'],
      ['sql', 'SELECT 1', '-f', 'x.sql'],
      ['sql'],
      ['serve', '--port', '65536'],
    ]) {
      const outcome = await cli(wrong);
      expect([wrong, outcome.code, outcome.stdout, outcome.opened]).toEqual([wrong, 2, '', []]);
      expect(outcome.stderr).toMatch(/^error: /);
    }
  });

  it('finds the data directory in the flag, before or after the command, then in the environment', async () => {
    const dataDirs = await Promise.all([
      cli(['endpoints', 'list', '--data', 'a']),
      cli(['--data', 'b', 'endpoints', 'list']),
      cli(['endpoints', '--data', 'c', 'list']),
      cli(['endpoints'], { env: { DUCKSERVE_DATA: 'd' } }),
      cli(['endpoints']),
    ]);
    expect(dataDirs.map(({ opened }) => opened[0]?.dataDir)).toEqual(
      ['a', 'b', 'c', 'd', '.duckserve'].map((path) => resolve(path)),
    );
  });

  it('closes the application whatever happens', async () => {
    const failed = await cli(['sql', 'SELECT 1'], {
      run: async () => Promise.reject(new ServingError('SQL_ERROR', 'no')),
    });
    expect(failed.asked.slice(-2)).toEqual([['session.close'], ['app.close']]);
  });
});

describe('errors', () => {
  it('are one line with the code, exit code 1, and nothing on standard output', async () => {
    const outcome = await cli(['sql', 'SELECT x'], {
      run: async () => {
        throw new ServingError(
          'SQL_ERROR',
          'Binder Error: no column x\n\nLINE 1: SELECT x\n               ^',
          { cause: new Error('deep') },
        );
      },
    });
    expect(outcome).toMatchObject({
      code: 1,
      stdout: '',
      stderr: 'error: Binder Error: no column x (LINE 1: SELECT x) [SQL_ERROR]\n',
    });
  });

  it('show the place in the statement below the line on a terminal', () => {
    const error = new ServingError(
      'SQL_ERROR',
      'Binder Error: no column x\n\nLINE 1: SELECT x\n               ^',
    );
    expect(errorText(error, { isVerbose: false, isTty: true })).toBe(
      'error: Binder Error: no column x [SQL_ERROR]\nLINE 1: SELECT x\n               ^\n',
    );
  });

  it('show their causes only with --verbose', async () => {
    const run = async () =>
      Promise.reject(new ServingError('UPSTREAM_ERROR', 'gone', { cause: new Error('ECONNRESET here') }));
    expect((await cli(['sql', 'SELECT 1'], { run })).stderr).toBe('error: gone [UPSTREAM_ERROR]\n');
    const verbose = await cli(['--verbose', 'sql', 'SELECT 1'], { run });
    expect(verbose.stderr).toContain('caused by Error: ECONNRESET here');
    expect(verbose.opened[0]?.verbose).toBe(true);
  });

  it('that are no ServingError are told as INTERNAL', async () => {
    const outcome = await cli(['sql', 'SELECT 1'], {
      run: async () => Promise.reject(new TypeError('oops')),
    });
    expect([outcome.code, outcome.stderr]).toEqual([1, 'error: oops [INTERNAL]\n']);
  });
});

describe('serve and demo', () => {
  it('prints one line with its address on standard output and closes in order on a signal', async () => {
    for (const signal of ['SIGINT', 'SIGTERM']) {
      const started: unknown[] = [];
      const { deps, signals, outcome } = fakeDeps({
        startHttp: async (_app, options) => {
          started.push(options);
          setImmediate(() => signals.emit(signal));
          return { url: 'http://127.0.0.1:9', close: async () => void started.push('http.close') };
        },
      });
      const { code, stdout, stderr, asked, opened } = outcome(
        await runCli(['serve', '--port', '9', '--data', '/d'], deps),
      );
      const line = 'duckserve listens on http://127.0.0.1:9\n';
      expect([code, stdout, asked]).toEqual([0, line, [['app.close']]]);
      expect(started).toMatchObject([{ host: '127.0.0.1', port: 9, drainMs: 30_000 }, 'http.close']);
      expect(opened[0]?.dbPath).toBe(join('/d', 'main.duckdb'));
      // Examples to try are for people; a script that reads standard error gets none.
      expect(stderr).not.toContain('curl');
      expect(signals.listenerCount(signal)).toBe(0);
    }
  });

  it('runs the demo with and without the chat model', async () => {
    expect((await cli(['demo', '--data', '/d'])).asked).toEqual([['runDemo', true, '/d']]);
    expect((await cli(['demo', '--no-chat', '--data', '/d'])).asked).toEqual([['runDemo', false, '/d']]);
  });
});
