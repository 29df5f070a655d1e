import stringWidth from 'string-width';
import { describe, expect, it } from 'vitest';
import type { Io } from '../../src/cli/program.ts';
import {
  bar,
  formatCost,
  formatSeconds,
  RateWindow,
  renderDownload,
  renderProgress,
} from '../../src/cli/progress.ts';
import { StatusLine } from '../../src/cli/status-line.ts';
import { Collected, progressOf } from './fake-app.ts';

describe('the progress line', () => {
  it('shows calls, rate, cost and the time that is left', () => {
    const line = renderProgress(progressOf({ answered: 2500, total: 10_000, cost: 0.0123 }), 500, 120);
    expect(line).toBe('▕█████               ▏ 2,500/10,000 calls  500/s  $0.0123  ETA 15 s');
  });

  it('is empty while nothing has been asked, and says nothing of cost or time it does not know', () => {
    expect(renderProgress(progressOf(), null, 80)).toBe('');
    expect(renderProgress(progressOf({ answered: 1, total: 4 }), null, 80)).toBe(
      '▕█████               ▏ 1/4 calls',
    );
  });

  it('tells failures and the pass', () => {
    expect(renderProgress(progressOf({ answered: 4, total: 4, failed: 1, pass: 2 }), 8, 80)).toContain(
      '8.0/s  1 failed  pass 2',
    );
  });

  it('stays narrower than the terminal at every width', () => {
    const progress = progressOf({ answered: 123_456, total: 1_000_000, cost: 12.3, failed: 7, pass: 3 });
    for (let columns = 8; columns < 120; columns += 1) {
      expect(stringWidth(renderProgress(progress, 1234.5, columns))).toBeLessThan(columns);
      expect(
        stringWidth(renderDownload('embedded/all-minilm-l6-v2', 5_000_000, 23_000_000, columns)),
      ).toBeLessThan(columns);
    }
  });

  it('shows how fast a download goes and how long it will take', () => {
    const [done, total] = [250 * 1_048_576, 1000 * 1_048_576];
    expect(renderDownload('model.gguf', done, total, 120, 25 * 1_048_576)).toBe(
      '▕█████               ▏ model.gguf 250.0/1000.0 MiB  25%  25.0 MiB/s  ETA 30 s',
    );
    expect(renderDownload('model.gguf', done, 0, 120, 1_048_576)).toBe('model.gguf 250.0 MiB  1.0 MiB/s');
    const stderr = new Collected();
    const status = new StatusLine({ stderr, isStderrTty: true, columns: 120 } as unknown as Io);
    status.download('model.gguf', 0, total, 5_000);
    status.download('model.gguf', done, total, 15_000);
    expect(stderr.text).toContain('25%  25.0 MiB/s  ETA 30 s');
  });

  it('fills its bar evenly', () => {
    expect(bar(0, 4)).toBe('▕    ▏');
    expect(bar(0.5, 4)).toBe('▕██  ▏');
    expect(bar(1, 4)).toBe('▕████▏');
    expect(bar(7, 4)).toBe('▕████▏');
  });

  it('takes its rate from the last seconds, so that answers from the store do not spoil it', () => {
    const rate = new RateWindow();
    expect(rate.perSecond).toBeNull();
    rate.add(0, 90_000);
    rate.add(1000, 90_100);
    expect(rate.perSecond).toBe(100);
    for (let second = 2; second <= 40; second += 1) rate.add(second * 1000, 90_100 + (second - 1) * 10);
    expect(rate.perSecond).toBeCloseTo(10, 5);
  });
});

describe('numbers for people', () => {
  it('show as many digits of a cost as matter', () => {
    expect([0, 0.000123, 0.0523, 0.5, 12.4, 1234].map(formatCost)).toEqual([
      '$0',
      '$0.00012',
      '$0.0523',
      '$0.50',
      '$12.40',
      '$1,234.00',
    ]);
  });
  it('show times from seconds to hours', () => {
    expect([0.04, 9.9, 12.4, 61, 3700].map(formatSeconds)).toEqual([
      '0.0 s',
      '9.9 s',
      '12 s',
      '1 min 1 s',
      '1 h 1 min',
    ]);
  });
});

describe('the status line', () => {
  const open = (isTty: boolean) => {
    const stderr = new Collected();
    const io = {
      stdout: new Collected(),
      stderr,
      stdin: process.stdin,
      isStdoutTty: isTty,
      isStderrTty: isTty,
      columns: 80,
    };
    return { line: new StatusLine(io), stderr };
  };

  it('is silent where standard error is no terminal, but lines meant to stay are said', () => {
    const { line, stderr } = open(false);
    line.progress(progressOf({ answered: 1, total: 2 }));
    line.download('m', 1, 2);
    line.say('note');
    line.clear();
    expect(stderr.text).toBe('note\n');
  });

  it('is drawn at most ten times a second and wiped at the end', () => {
    const { line, stderr } = open(true);
    for (let elapsedMs = 0; elapsedMs < 1000; elapsedMs += 10)
      line.progress(progressOf({ answered: elapsedMs, total: 1000, elapsedMs }));
    expect(stderr.text.split('\u001b[2K').length - 1).toBe(10);
    line.progress(progressOf({ answered: 1000, total: 1000, elapsedMs: 1000, isFinal: true }));
    expect(stderr.text.endsWith('\r\u001b[2K')).toBe(true);
  });

  it('moves below a line that is said in between', () => {
    const { line, stderr } = open(true);
    line.download('m', 1, 4);
    line.say('hello');
    expect(stderr.text).toContain('\r\u001b[2Khello\n▕');
    expect(stderr.text.endsWith('25%')).toBe(true);
  });
});
