// Parts of a benchmark: exported functions that run in a process of their own, so that each starts cold, has the
// pool size of the real program, and has its own peak memory. The process itself is part-process.ts.
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface PartRequest {
  readonly module: string;
  readonly part: string;
  readonly args: unknown;
}
export type PartMessage =
  | { readonly type: 'value'; readonly value: unknown }
  | { readonly type: 'ended'; readonly peakRssMb: number }
  | { readonly type: 'failed'; readonly reason: string };

export interface PartResult<Result> {
  readonly value: Result;
  readonly peakRssMb: number;
}

/** Runs an exported function of a module (`import.meta.url`) in a fresh process. Arguments and result are JSON. */
export async function runPart<Args, Result>(
  module: string,
  part: (args: Args) => Promise<Result>,
  args: Args,
): Promise<PartResult<Result>> {
  const child = start({ module, part: part.name, args });
  const value = await nextMessage(child, 'value');
  const { peakRssMb } = await nextMessage(child, 'ended');
  return { value: value.value as Result, peakRssMb };
}

function start(request: PartRequest): ChildProcess {
  const profileDir = process.env.DUCKSERVE_BENCH_PROFILE;
  const child = fork(fileURLToPath(new URL('./part-process.ts', import.meta.url)), {
    execArgv: [
      '--import',
      'tsx',
      ...(profileDir ? ['--cpu-prof', `--cpu-prof-dir=${profileDir}`, '--cpu-prof-interval=500'] : []),
    ],
    // As bin/duckserve.cjs sets it; inside the process it would be too late.
    env: { ...process.env, UV_THREADPOOL_SIZE: process.env.UV_THREADPOOL_SIZE ?? '32' },
  });
  child.send(request);
  return child;
}

function nextMessage<Type extends PartMessage['type']>(
  child: ChildProcess,
  type: Type,
): Promise<Extract<PartMessage, { type: Type }>> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: PartMessage) => {
      if (message.type === type) done(() => resolve(message as Extract<PartMessage, { type: Type }>));
      else if (message.type === 'failed') done(() => reject(new Error(message.reason)));
    };
    const onExit = (code: number | null) =>
      done(() =>
        reject(new Error(`A part of the benchmark ended with exit code ${code} before its result.`)),
      );
    const done = (end: () => void) => {
      child.off('message', onMessage);
      child.off('exit', onExit);
      end();
    };
    child.on('message', onMessage);
    child.on('exit', onExit);
  });
}
