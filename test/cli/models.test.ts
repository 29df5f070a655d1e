// `duckserve models register`: what its options mean, and what it shows of the model that was registered.
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cli } from './fake-app.ts';

const register = async (...flags: string[]) => await cli(['models', 'register', 'm', 'model', ...flags]);
const optionsOf = (outcome: Awaited<ReturnType<typeof cli>>) => {
  const [call] = outcome.asked.filter(([name]) => name === 'registerModel');
  expect(call?.slice(0, 3)).toEqual(['registerModel', 'm', resolve('model')]);
  const { onFound, ...options } = (call?.[3] ?? {}) as Record<string, unknown>;
  expect(onFound).toBeTypeOf('function');
  return options;
};

describe('models register', () => {
  it('asks for nothing that was not said', async () => {
    expect(optionsOf(await register())).toEqual({});
  });

  it('hands its options on', async () => {
    const outcome = await register(
      ...['--alias', 'a', '--description', 'd', '--engine', 'python', '--task', 'predict', '--allow-code'],
      ...[
        '--no-endpoint',
        '--option',
        'threads=2',
        '--option',
        'python=/usr/bin/python3',
        '--option',
        'x=a=b',
      ],
    );
    expect(outcome.code).toBe(0);
    expect(optionsOf(outcome)).toEqual({
      alias: 'a',
      description: 'd',
      engine: 'python',
      task: 'predict',
      allowCode: true,
      createsEndpoint: false,
      options: { threads: 2, python: '/usr/bin/python3', x: 'a=b' },
    });
  });

  it.each([
    [['--engine', 'openai'], 'Allowed choices are onnx, static, llama, echo, python, trees, module'],
    [['--task', 'chat'], 'Allowed choices are'],
    [['--option', 'threads'], "'threads' is not of the form name=value"],
  ])('refuses %j', async (flags, words) => {
    const outcome = await register(...flags);
    expect(outcome.code).not.toBe(0);
    expect(outcome.stderr).toContain(words);
    expect(outcome.asked).toEqual([]);
  });

  it('shows engine, task, options and size of the new version', async () => {
    const { stdout, stderr } = await register();
    expect(stderr).toBe('Registered penguins version 2 (onnx, predict).\n');
    for (const line of [
      '│ engine  │ onnx',
      '│ task    │ predict',
      '│ options │ camelCase=1',
      '│ size    │ 2.0 KiB',
    ])
      expect(stdout).toContain(line);
  });
});
