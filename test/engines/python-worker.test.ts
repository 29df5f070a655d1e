// Processes of Python: how they die, what becomes of their requests, what they are given and what they may say.
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { Runner } from '#engines/engine.ts';
import type { PredictRunner } from '#engines/python/predict-runner.ts';
import { pythonEngine } from '#engines/python/python.ts';
import { expectCode } from './contract.ts';
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
  folder = await mkdtemp(join(tmpdir(), 'duckserve-worker-'));
});
afterEach(async () => {
  for (const runner of opened.splice(0)) await runner.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function open(
  files: ModelFiles,
  options: JsonObject = {},
  log = SILENT_LOG,
  changes: Partial<Target> = {},
): Promise<Runner> {
  const target = targetOf(await writeModel(folder, files), options, changes);
  const runner = await pythonEngine.open(target, contextOf(log));
  opened.push(runner);
  return runner;
}

const pidOf = (runner: Runner): number => (runner as PredictRunner).pid ?? 0;
const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
/** Looks until it is so; the test's own time limit is the only one. */
const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await sleep(10);
};

const COLUMN = { type: 'double', name: 'a', required: true };
const model = (predict: string): ModelFiles => ({ predict, signature: { inputs: [COLUMN] } });
const SAME = model('return data["a"]');
const ENDLESS = 'while True:\n    time.sleep(0.01)';

describe.skipIf(NO_PYTHON)(`workers of Python${NO_PYTHON ? ` (skipped: ${NO_PYTHON})` : ''}`, () => {
  test('killed ten times under load, every call has its answer, MODEL_CRASHED, or was not sent and may be asked again', async () => {
    const source = await writeModel(folder, model('time.sleep(0.001)\nreturn data["a"]'));
    let answered = 0;
    let crashed = 0;
    const codes: string[] = [];
    for (let round = 0; round < 10; round++) {
      const runner = await pythonEngine.open(targetOf(source), contextOf(SILENT_LOG));
      opened.push(runner);
      const calls = Array.from({ length: 40 }, (_, call) =>
        ask(runner, [{ a: call }]).then(
          (items) => {
            expect(shown(items)).toEqual([call]);
            answered++;
            if (answered % 20 === 3) process.kill(pidOf(runner), 'SIGKILL');
          },
          (error: unknown) => {
            expect(error).toBeInstanceOf(ServingError);
            expect((error as ServingError).message).toContain('SIGKILL');
            codes.push((error as ServingError).code);
            crashed++;
          },
        ),
      );
      await Promise.all(calls);
      if (isAlive(pidOf(runner))) process.kill(pidOf(runner), 'SIGKILL');
      expect((await runner.lost)?.code).toBe('MODEL_CRASHED');
      // A runner that is lost says so at once, and does not wait for anything.
      await expectCode('UPSTREAM_ERROR', ask(runner, [{ a: 1 }]));
    }
    expect(answered + crashed).toBe(400);
    expect(new Set(codes)).toEqual(new Set(['MODEL_CRASHED', 'UPSTREAM_ERROR']));
    // One request is in a process at a time: no other can have been the reason.
    expect(codes.filter((code) => code === 'MODEL_CRASHED').length).toBeLessThanOrEqual(10);
  });

  test('a model that ends its process takes its own calls down with a typed error, and nothing else', async () => {
    const [first, second] = await Promise.all([open(model('os._exit(7)')), open(SAME)]);
    const error = await expectCode('MODEL_CRASHED', ask(first, [{ a: 1 }]));
    expect(error.message).toContain('code 7');
    expect(error.row.isRetryable).toBe(false);
    expect(shown(await ask(second, [{ a: 1 }]))).toEqual([1]);
  });

  test('a crash in native code leaves its traceback in the log', async () => {
    const { log, lines } = recordLog();
    const runner = await open(model('import ctypes\nctypes.string_at(0)'), {}, log);
    await expectCode('MODEL_CRASHED', ask(runner, [{ a: 1 }]));
    await until(() => lines.some(({ message }) => message.includes('Segmentation fault')));
  });

  test('a request over its time limit ends the process, and the message names the option', async () => {
    const runner = await open(model(ENDLESS), { timeoutSeconds: 0.2 });
    const error = await expectCode('MODEL_CRASHED', ask(runner, [{ a: 1 }]));
    expect(error.message).toContain('timeoutSeconds');
    await until(() => !isAlive(pidOf(runner)));
  });

  test('loading over its time limit does, too', async () => {
    const files = { 'code/own_loader.py': 'import time\ntime.sleep(1000)\n' };
    await expect(open({ ...SAME, files }, { startSeconds: 0.3 })).rejects.toMatchObject({
      code: 'MODEL_NOT_AVAILABLE',
      message: expect.stringContaining('startSeconds'),
    });
  });

  test.skipIf(process.platform !== 'linux')('memory over its limit ends the process', async () => {
    const runner = await open(model('block = bytearray(200_000_000)\ntime.sleep(1000)'), { memoryMb: 100 });
    const error = await expectCode('MODEL_CRASHED', ask(runner, [{ a: 1 }]));
    expect(error.message).toContain('memoryMb');
  });

  test('closing ends the process, also one that is busy and does not listen', async () => {
    const quiet = await open(SAME);
    await quiet.close();
    expect(isAlive(pidOf(quiet))).toBe(false);
    const deaf = await open(model(ENDLESS), {}, SILENT_LOG);
    const call = expectCode('CANCELLED', ask(deaf, [{ a: 1 }]));
    await deaf.close();
    await call;
    expect(isAlive(pidOf(deaf))).toBe(false);
  });

  test('what a model has started ends with it', async () => {
    const predict = `import subprocess
child = subprocess.Popen(["sleep", "1000"])
return [child.pid for _ in data["a"]]`;
    const runner = await open(model(predict));
    const [child] = shown(await ask(runner, [{ a: 1 }])) as number[];
    expect(isAlive(child!)).toBe(true);
    process.kill(pidOf(runner), 'SIGKILL');
    await runner.lost;
    await until(() => !isAlive(child!));
  });

  test('a worker ends when whoever started it is killed', async () => {
    const source = await writeModel(
      folder,
      model(`with open("${folder}/began", "w") as file:\n    file.write("x")\n${ENDLESS}`),
    );
    const script = join(folder, 'owner.mts');
    const from = JSON.stringify(new URL('../../src/engines/python/python.ts', import.meta.url).href);
    const target = JSON.stringify(targetOf(source));
    await writeFile(
      script,
      `import { pythonEngine } from ${from};
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const runner = await pythonEngine.open(${target}, { log: quiet, resolveSecret: (text) => text, notify() {} });
console.log(runner.pid);
await runner.invoke({ task: 'predict', inputs: [{ features: [1] }], parameters: {}, signal: new AbortController().signal });`,
    );
    const tsx = new URL(import.meta.resolve('tsx')).href;
    const owner = spawn(process.execPath, ['--import', tsx, script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let written = '';
    owner.stdout.on('data', (chunk: Buffer) => (written += chunk.toString()));
    await until(() => written.includes('\n') && existsSync(join(folder, 'began')));
    const pid = Number(written);
    expect(isAlive(pid)).toBe(true);
    owner.kill('SIGKILL');
    await until(() => !isAlive(pid));
  });

  test('the environment is an allow list and the variables of the endpoint; secrets never reach the log', async () => {
    process.env.DUCKSERVE_TEST_KEY_OF_SERVER = 'server-key-1234';
    try {
      const { log, lines } = recordLog();
      const predict = `print("I was given " + os.environ["TOKEN"], flush=True)
print("to stderr " + os.environ["TOKEN"], file=sys.stderr, flush=True)
if data["a"][0] == 2:
    raise ValueError("not with " + os.environ["TOKEN"])
return [json.dumps(dict(os.environ)) for _ in data["a"]]`;
      const environment = { TOKEN: '{{secrets/agents/token}}', MODE: 'plain' };
      const runner = await open(model(predict), { threads: 3 }, log, { environment });
      const [text] = shown(await ask(runner, [{ a: 1 }]));
      const variables = JSON.parse(String(text)) as Record<string, string>;
      expect(variables).toMatchObject({
        TOKEN: 'secret-of-agents/token',
        MODE: 'plain',
        OMP_NUM_THREADS: '3',
      });
      expect(variables.PATH).toBe(process.env.PATH);
      expect(JSON.stringify(variables)).not.toContain('server-key-1234');
      await until(() => lines.some(({ message }) => message.includes('to stderr')));
      expect(lines.find(({ message }) => message.includes('I was given'))).toMatchObject({
        level: 'info',
        message: 'I was given ***',
      });
      const [raised] = shown(await ask(runner, [{ a: 2 }]));
      expect(raised).toContain('not with ***');
      expect(JSON.stringify([lines, raised])).not.toContain('secret-of-agents');
    } finally {
      delete process.env.DUCKSERVE_TEST_KEY_OF_SERVER;
    }
  });

  test('what a model writes where it runs does not land among its files, and goes with it', async () => {
    const predict = 'open("left-over", "w").close()\nreturn [os.getcwd() for _ in data["a"]]';
    const source = await writeModel(folder, model(predict));
    const before = await readdir(source, { recursive: true });
    const runner = await pythonEngine.open(targetOf(source), contextOf(SILENT_LOG));
    opened.push(runner);
    const [scratch] = shown(await ask(runner, [{ a: 1 }])) as string[];
    expect(existsSync(join(scratch!, 'left-over'))).toBe(true);
    expect(await readdir(source, { recursive: true })).toEqual(before);
    await runner.close();
    await until(() => !existsSync(scratch!));
  });

  test('a flood of lines is cut, and long lines too', async () => {
    const { log, lines } = recordLog();
    const predict =
      'print("x" * 100_000, flush=True)\nfor row in range(20_000):\n    print("line", row)\nreturn data["a"]';
    await ask(await open(model(predict), {}, log), [{ a: 1 }]);
    expect(lines.length).toBeLessThan(1_000);
    expect(Math.max(...lines.map(({ message }) => message.length))).toBeLessThanOrEqual(2_000);
  });

  test('who gives up hears it at once; the next request is answered when the place is free', async () => {
    const runner = await open(model('time.sleep(0.2 if data["a"][0] == 1 else 0)\nreturn data["a"]'));
    const controller = new AbortController();
    const first = expectCode('CANCELLED', ask(runner, [{ a: 1 }], { signal: controller.signal }));
    const waiting = new AbortController();
    const second = expectCode('CANCELLED', ask(runner, [{ a: 1 }], { signal: waiting.signal }));
    controller.abort();
    waiting.abort();
    await Promise.all([first, second]);
    expect(shown(await ask(runner, [{ a: 2 }]))).toEqual([2]);
  });

  test('one request at a time, unless the model is said to bear more', async () => {
    const predict = `self.now = getattr(self, "now", 0) + 1
self.most = max(getattr(self, "most", 0), self.now)
time.sleep(0.05)
self.now -= 1
return [self.most for _ in data["a"]]`;
    const [one, many] = await Promise.all([
      open(model(predict)),
      open(model(predict), { maxConcurrency: 4 }),
    ]);
    const mostOf = async (runner: Runner) => {
      const answers = await Promise.all(Array.from({ length: 8 }, () => ask(runner, [{ a: 1 }])));
      return Math.max(...answers.map((items) => Number(shown(items)[0])));
    };
    expect(await mostOf(one)).toBe(1);
    expect(await mostOf(many)).toBeGreaterThan(1);
  });

  test('a model that writes nonsense into the socket is ended, not believed', async () => {
    const runner = await open(model('os.write(3, b"HTTP/1.1 200 OK\\r\\n\\r\\n")\ntime.sleep(1000)'));
    await expectCode('INVALID_RESPONSE', ask(runner, [{ a: 1 }]));
    await until(() => !isAlive(pidOf(runner)));
  });

  test('a model that shuts the socket down is ended, and its request does not wait for ever', async () => {
    const runner = await open(
      model('import socket\nsocket.socket(fileno=os.dup(3)).shutdown(2)\ntime.sleep(1000)'),
    );
    await expectCode('MODEL_CRASHED', ask(runner, [{ a: 1 }]));
    await until(() => !isAlive(pidOf(runner)));
  });

  test('the sources of the worker are written for old and new Python alike', async () => {
    const check =
      'import ast, pathlib, sys\nfor path in pathlib.Path(sys.argv[1]).rglob("*.py"): ast.parse(path.read_text(), feature_version=(3, 8))';
    const python = new URL('../../python/', import.meta.url).pathname;
    await promisify(execFile)('python3', ['-c', check, python]);
  });
});
