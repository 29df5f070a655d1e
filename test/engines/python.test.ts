// The Python engine on real processes: what models are handed, what becomes of what they give, and of bad rows.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { JsonObject } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { Runner } from '#engines/engine.ts';
import { pythonEngine } from '#engines/python/python.ts';
import { describeEngine, expectCode } from './contract.ts';
import {
  ask,
  contextOf,
  type ModelFiles,
  NO_PYTHON,
  recordLog,
  shown,
  targetOf,
  writeModel,
} from './python-models.ts';

let folder = '';
const opened: Runner[] = [];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duckserve-python-'));
});
afterEach(async () => {
  for (const runner of opened.splice(0)) await runner.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function open(files: ModelFiles, options: JsonObject = {}, log = SILENT_LOG): Promise<Runner> {
  const runner = await pythonEngine.open(targetOf(await writeModel(folder, files), options), contextOf(log));
  opened.push(runner);
  return runner;
}

const double = (name: string): JsonObject => ({ type: 'double', name, required: true });
const SUM: ModelFiles = {
  predict: 'return [a + b + self.settings["bias"] for a, b in zip(data["a"], data["b"])]',
  signature: { inputs: [double('a'), double('b')], outputs: [double('sum')] },
};
/** Gives back the cells of its only column. */
const SAME = 'return list(data[next(iter(data))])';

describe.skipIf(NO_PYTHON)(`models in Python${NO_PYTHON ? ` (skipped: ${NO_PYTHON})` : ''}`, () => {
  describeEngine('python', {
    task: 'predict',
    open: async () =>
      pythonEngine.open(
        targetOf(await writeModel(await mkdtemp(join(tmpdir(), 'duckserve-python-')), SUM)),
        contextOf(SILENT_LOG),
      ),
    inputs: [{ features: { a: 1, b: 2 } }, { features: [3, 4] }],
  });

  test('rows by name and by position go through the loader of the model, in order', async () => {
    const runner = await open(SUM);
    expect(runner.signature?.outputs.map(({ name }) => name)).toEqual(['sum']);
    expect(shown(await ask(runner, [{ a: 1, b: 2 }, [3, 4], { b: 1.5, a: 0 }]))).toEqual([4, 8, 2.5]);
  });

  test('a row that does not fit the signature fails alone', async () => {
    const [good, bad] = await ask(await open(SUM), [
      { a: 1, b: 2 },
      { a: 'ten', b: 2 },
    ]);
    expect(shown([good!])).toEqual([4]);
    expect(bad).toMatchObject({ ok: false, error: { code: 'SCHEMA_MISMATCH' } });
  });

  test('rows that make the model raise fail alone, each with its own exception and no other row in it', async () => {
    const { log, lines } = recordLog();
    const predict = `for value in data["a"]:
    if value < 0:
        raise ValueError(f"cannot take {value} of {data['a']}")
return data["a"]`;
    const runner = await open({ predict, signature: { inputs: [double('a')] } }, {}, log);
    const rows = Array.from({ length: 500 }, (_, row) => ({ a: row % 200 === 77 ? -row : row }));
    const items = shown(await ask(runner, rows));
    expect(items.filter((item) => typeof item === 'number')).toHaveLength(497);
    expect(items[77]).toBe(
      'UPSTREAM_REJECTED: Model "demo" raised ValueError: cannot take -77.0 of [-77.0] for this row.',
    );
    expect(items[477]).toContain('-477.0 of [-477.0]');
    expect(lines.some(({ message }) => message.includes('own_loader.py'))).toBe(true);
  });

  test('a model that raises for everything is not tried row by row', async () => {
    const predict = 'print("asked", flush=True)\nraise RuntimeError("the weights are gone: " + str(data))';
    const { log, lines } = recordLog();
    const runner = await open({ predict, signature: { inputs: [double('a')] } }, {}, log);
    const items = shown(
      await ask(
        runner,
        Array.from({ length: 4_000 }, (_, row) => ({ a: row })),
      ),
    );
    expect(items[0]).toContain('RuntimeError: the weights are gone');
    expect(items[3_999]).toContain('RuntimeError for');
    expect(items[3_999]).not.toContain('weights');
    expect(lines.filter(({ message }) => message === 'asked').length).toBeLessThan(100);
  });

  test('predictions: NaN is null, objects stay objects, dates are ISO, bytes base64, large integers keep their digits', async () => {
    const predict = `import datetime, decimal
values = [float("nan"), {"a": float("inf"), "b": [1, None]}, datetime.datetime(2026, 1, 2, 3, 4, 5),
          b"\\xff\\x00", 2**60, decimal.Decimal("1.10"), True, "text", None, (1, 2)]
return [values[int(row)] for row in data["row"]]`;
    const runner = await open({ predict, signature: { inputs: [double('row')] } });
    const rows = Array.from({ length: 10 }, (_, row) => ({ row }));
    const expected = [
      null,
      { a: null, b: [1, null] },
      '2026-01-02T03:04:05',
      '/wA=',
      '1152921504606846976',
      '1.10',
      true,
      'text',
      null,
      [1, 2],
    ];
    expect(shown(await ask(runner, rows))).toEqual(expected);
    for (const [row, value] of expected.entries())
      expect(shown(await ask(runner, [{ row }]))).toEqual([value]);
  });

  test('several outputs are an object by name; one number for many rows is refused, for one row it is the answer', async () => {
    const named = await open({
      predict: 'return {"low": [a - 1 for a in data["a"]], "high": [a + 1 for a in data["a"]]}',
      signature: { inputs: [double('a')] },
    });
    expect(shown(await ask(named, [{ a: 1 }, { a: 5 }]))).toEqual([
      { low: 0, high: 2 },
      { low: 4, high: 6 },
    ]);
    const mean = await open({
      predict: 'return sum(data["a"]) / len(data["a"])',
      signature: { inputs: [double('a')] },
    });
    expect(shown(await ask(mean, [{ a: 3 }]))).toEqual([3]);
  });

  test('a prediction without a form in JSON is the failure of its row', async () => {
    const predict = 'return [object() if a == 2 else a for a in data["a"]]';
    const items = shown(
      await ask(await open({ predict, signature: { inputs: [double('a')] } }), [{ a: 1 }, { a: 2 }]),
    );
    expect(items[0]).toBe(1);
    expect(items[1]).toContain('builtins.object');
  });

  test('texts of any script, empty ones and NULL come back as they went', async () => {
    const column = { type: 'string', name: 'text', required: true };
    const runner = await open({ predict: SAME, signature: { inputs: [column], outputs: [column] } });
    const text = fc.option(fc.string({ unit: 'grapheme', maxLength: 12 }), { nil: null, freq: 5 });
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 20 }), async (texts) => {
        expect(
          shown(
            await ask(
              runner,
              texts.map((each) => ({ text: each })),
            ),
          ),
        ).toEqual(texts);
      }),
      { numRuns: 40 },
    );
  });

  test('numbers of all types come back as they went', async () => {
    const inputs = [
      { type: 'double', name: 'd', required: true },
      { type: 'long', name: 'l', required: true },
      { type: 'integer', name: 'i', required: true },
      { type: 'boolean', name: 'b', required: true },
    ];
    const runner = await open({ predict: 'return data', signature: { inputs } });
    const row = fc.record({
      d: fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
      l: fc.maxSafeInteger(),
      i: fc.integer(),
      b: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 10 }), async (rows) => {
        expect(shown(await ask(runner, rows))).toEqual(rows.map((each) => ({ ...each })));
      }),
      { numRuns: 40 },
    );
  });

  test('without a signature columns are what the values are, and rows of several forms go separately', async () => {
    const runner = await open({
      predict: 'rows = len(next(iter(data.values())))\nreturn [",".join(map(str, data))] * rows',
    });
    expect(shown(await ask(runner, [{ a: 1, b: 'x' }, [1, 2, 3], { a: null, b: null }, [4]]))).toEqual([
      'a,b',
      '0,1,2',
      'a,b',
      '0',
    ]);
  });

  test('params are checked, completed with defaults and handed over', async () => {
    const files: ModelFiles = {
      predict: 'return [params["top"]] * len(data["a"])',
      signature: { inputs: [double('a')], params: [{ name: 'top', type: 'long', default: 5, shape: null }] },
    };
    const runner = await open(files);
    expect(shown(await ask(runner, [{ a: 1 }]))).toEqual([5]);
    expect(shown(await ask(runner, [{ a: 1 }], { parameters: { extra: { top: 2 } } }))).toEqual([2]);
    await expectCode(
      'INVALID_PARAMETER',

      ask(runner, [{ a: 1 }], { parameters: { extra: { bottom: 2 } } }),
    );
  });

  test('a model that cannot be loaded says why', async () => {
    const files = { 'code/own_loader.py': 'import a_package_that_nobody_has\n' };
    await expect(open({ predict: 'return 1', files })).rejects.toMatchObject({
      code: 'MODEL_NOT_AVAILABLE',
      message: expect.stringContaining("No module named 'a_package_that_nobody_has'"),
    });
    await expect(
      open({
        predict: 'return 1',
        files: {
          'code/own_loader.py': 'import os, sys\nprint("no licence found", file=sys.stderr)\nos._exit(3)',
        },
      }),
    ).rejects.toMatchObject({
      code: 'MODEL_NOT_AVAILABLE',
      message: expect.stringMatching(/code 3[\s\S]*no licence found/),
    });
  });

  test('options that are none are refused by name', async () => {
    for (const options of [
      { maxInputs: 0 },
      { timeoutSeconds: 'soon' },
      { memoryMb: 1.5 },
      { agent: 'clown' },
    ]) {
      await expect(open(SUM, options as JsonObject)).rejects.toMatchObject({
        code: 'INVALID_PARAMETER',
        message: expect.stringContaining(Object.keys(options)[0]!),
      });
    }
    await expect(open(SUM, { python: '/no/such/python' })).rejects.toMatchObject({
      code: 'MODEL_NOT_AVAILABLE',
      message: expect.stringContaining('/no/such/python'),
    });
  });
});
