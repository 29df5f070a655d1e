import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { runCli } from '../../src/cli/program.ts';
import { cli, fakeDeps, rowsResult } from './fake-app.ts';

const scratch = () => mkdtempSync(join(tmpdir(), 'duckserve-shell-'));
const run = async (sql: string) => {
  if (sql.includes('bad')) throw new ServingError('SQL_ERROR', 'no such thing');
  return [rowsResult([['n', 'INTEGER']], [[1]])];
};
const statements = (asked: readonly (readonly unknown[])[]) =>
  asked.filter(([name]) => name === 'run').map(([, sql]) => (sql as string).trim());

describe('the shell in a pipe', () => {
  it('gathers lines up to the semicolon, runs a last statement without one, and prompts for nothing', async () => {
    const outcome = await cli(['shell'], {
      run,
      stdin: "SELECT 1,\n ';'\n;\n\n-- a comment\n/* one\n; more */ SELECT 2;\nSELECT 3",
    });
    expect(statements(outcome.asked)).toEqual([
      "SELECT 1,\n ';'\n;",
      '/* one\n; more */ SELECT 2;',
      'SELECT 3',
    ]);
    expect([outcome.code, outcome.stderr]).toEqual([0, '']);
    expect(outcome.stdout).not.toContain('duckserve>');
  });

  it('goes on after a failed statement, tells it and ends with 1', async () => {
    const outcome = await cli(['shell'], { run, stdin: 'SELECT bad;\nSELECT 2;\n' });
    expect(statements(outcome.asked)).toEqual(['SELECT bad;', 'SELECT 2;']);
    expect([outcome.code, outcome.stderr]).toEqual([1, 'error: no such thing [SQL_ERROR]\n']);
  });

  it('knows its own commands', async () => {
    const file = join(scratch(), 'x.sql');
    writeFileSync(file, 'SELECT 7;');
    let nowMs = 0;
    const estimate = {
      calls: 1,
      cached: 0,
      inputTokens: 5,
      cost: null,
      seconds: null,
      unknown: null,
      endpoints: [],
    };
    const lines = [
      '.help',
      '.endpoints',
      '.models',
      '.tables',
      '.functions',
      '.format csv',
      'SELECT 1;',
      `.read ${file}`,
      '.estimate SELECT 1',
      '.timer on',
      'SELECT 9;',
      '.quit',
      'SELECT 10;',
    ];
    const outcome = await cli(['shell'], {
      run,
      estimate,
      stdin: lines.join('\n'),
      nowMs: () => (nowMs += 1500),
    });
    expect(outcome.code).toBe(0);
    expect(outcome.stderr).toContain('.estimate SQL');
    expect(outcome.stdout).toContain('tickets-llm');
    expect(outcome.stdout).toContain('penguins');
    const ran = statements(outcome.asked);
    expect(ran[0]).toBe('SHOW TABLES');
    expect(ran[1]).toContain('duckdb_functions()');
    expect(ran.slice(2)).toEqual(['SELECT 1;', 'SELECT 7;', 'SELECT 9;']);
    expect(outcome.asked).toContainEqual(['estimate', 'SELECT 1']);
    expect(outcome.stdout).toContain('n\n1\nn\n1\n');
    expect(outcome.stderr.endsWith('1.5 s\n')).toBe(true);
  });

  it('says what was meant by an unknown or wrongly used command', async () => {
    const outcome = await cli(['shell'], { run, stdin: '.tabels\n.format xml\n.timer\n' });
    expect(outcome.stderr.split('\n')).toEqual([
      'error: There is no command .tabels. Did you mean .tables? [BAD_REQUEST]',
      'error: .format was given "xml"; it takes table, json, jsonl, csv, markdown. [INVALID_PARAMETER]',
      'error: .timer was given nothing; it takes on, off. [INVALID_PARAMETER]',
      '',
    ]);
  });

  it('cancels the running statement on Ctrl-C, runs nothing after it and ends with 130', async () => {
    const { deps, signals, outcome } = fakeDeps({
      stdin: 'SELECT 1;\nSELECT 2;\n',
      run: async (_sql, { signal }) =>
        await new Promise((_, reject) => {
          signal?.addEventListener('abort', () => reject(new ServingError('CANCELLED', 'Cancelled.')));
          setImmediate(() => signals.emit('SIGINT'));
        }),
    });
    const { code, asked } = outcome(await runCli(['shell'], deps));
    expect([code, statements(asked)]).toEqual([130, ['SELECT 1;']]);
    expect(signals.listenerCount('SIGINT')).toBe(0);
  });
});

describe('the shell on a terminal', () => {
  function terminal() {
    const stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => stdin });
    return stdin;
  }
  /** Types the next keys when the text before has appeared on the terminal. */
  async function play(steps: readonly (readonly [waitFor: string, keys: string])[], dataDir: string) {
    const stdin = terminal();
    const { deps, signals, outcome } = fakeDeps({
      stdin,
      isTty: true,
      run: async (sql, { signal }) => {
        if (!sql.includes('slow')) return await run(sql);
        return await new Promise((_, reject) => {
          signal?.addEventListener('abort', () =>
            reject(new ServingError('CANCELLED', 'The statement was cancelled.')),
          );
          stdin.write('\u0003');
        });
      },
    });
    const ended = runCli(['shell', '--data', dataDir], deps);
    const screen = deps.io.stdout as unknown as { text: string };
    let seen = 0;
    for (const [waitFor, keys] of steps) {
      while (!screen.text.slice(seen).includes(waitFor))
        await new Promise((resolve) => setImmediate(resolve));
      seen = screen.text.length;
      stdin.write(keys);
    }
    return { ...outcome(await ended), signals };
  }

  it('prompts, continues, completes words, and leaves with Ctrl-D', async () => {
    const { code, stdout, asked } = await play(
      [
        ['duckserve> ', 'SELECT ai_q\t'],
        ['ai_query', "('x')\r"],
        ['...> ', ';\r'],
        ['1 row', '\u0004'],
      ],
      scratch(),
    );
    expect([code, statements(asked)]).toEqual([0, ["SELECT ai_query('x')\n;"]]);
    expect(stdout.endsWith('\n')).toBe(true);
  });

  it('cancels a running statement with Ctrl-C and goes on; Ctrl-C at the prompt drops what was typed', async () => {
    const { code, stderr, asked, signals } = await play(
      [
        ['duckserve> ', 'SELECT slow;\r'],
        ['duckserve> ', 'SELECT half\r'],
        ['...> ', 'typed\u0003'],
        ['duckserve> ', 'SELECT 5;\r'],
        ['1 row', '.quit\r'],
      ],
      scratch(),
    );
    expect([code, statements(asked), signals.kills]).toEqual([0, ['SELECT slow;', 'SELECT 5;'], 0]);
    expect(stderr).toContain('error: The statement was cancelled. [CANCELLED]');
  });

  it('keeps its history in a file that only the owner may read', async () => {
    const dataDir = scratch();
    await play(
      [
        ['duckserve> ', 'SELECT 5;\r'],
        ['1 row', '.quit\r'],
      ],
      dataDir,
    );
    const path = join(dataDir, 'shell_history');
    expect(readFileSync(path, 'utf8')).toBe('SELECT 5;\n.quit\n');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const { asked } = await play(
      [
        ['duckserve> ', '\u001b[A\u001b[A\r'],
        ['1 row', '\u0004'],
      ],
      dataDir,
    );
    expect(statements(asked)).toEqual(['SELECT 5;']);
  });
});
