// Agents written as a module of JavaScript or TypeScript, in a thread of their own: they work on calls side by side
// and ask other endpoints in the name of their caller. A thread keeps mistakes apart; it is no prison for bad will.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import type { StreamEvent } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { startWorker } from '#core/worker.ts';
import type { Batch, BatchAnswer, Engine, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import { WorkerOutput } from '../python/worker-output.ts';
import { estimateTokens, lengthOfInput, requireTask } from '../text-input.ts';
import { AgentAnswer } from './agent-answer.ts';
import { requireCaller, toAgentPrincipal, toAgentRequest } from './agent-request.ts';
import { type AgentCall, AgentThread } from './agent-thread.ts';
import type { ThreadData } from './messages.ts';
import { type ModuleOptions, moduleOptionsOf } from './options.ts';

export const moduleEngine: Engine = {
  kind: 'module',
  async open(target, context) {
    const { modelVersion } = target;
    if (!modelVersion) throw new ServingError('INTERNAL', 'A module is served from a registered version.');
    const options = moduleOptionsOf(modelVersion);
    const thread = startThread(target, modelVersion.source, options, context);
    try {
      const { streams } = await thread.loaded();
      return streams
        ? new StreamingRunner(target, thread, options)
        : new ModuleRunner(target, thread, options);
    } catch (thrown) {
      await thread.close();
      throw thrown;
    }
  },
};

class ModuleRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly lost: Promise<ServingError>;
  protected readonly thread: AgentThread;
  protected readonly target: Target;

  constructor(target: Target, thread: AgentThread, { maxConcurrency }: ModuleOptions) {
    this.target = target;
    this.thread = thread;
    this.lost = thread.lost;
    this.limits = {
      ...{ maxInputs: 1, maxTokens: 10_000_000, maxConcurrency },
      ...{ isAdaptive: false, isPadded: false },
    };
  }

  countTokens(input: Batch['inputs'][number]): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    const answer = this.answerTo(batch);
    try {
      for (const value of await this.thread.ask(this.callOf(batch))) answer.take(value);
      return { items: [answer.item()] };
    } catch (thrown) {
      // What the agent itself did wrong says nothing of the thread.
      if (batch.signal.aborted || !isOfAgent(thrown)) throw thrown;
      return { items: [{ ok: false, error: thrown }] };
    }
  }

  close(): Promise<void> {
    return this.thread.close();
  }

  protected answerTo({ inputs, task }: Batch): AgentAnswer {
    requireTask(this.target, task);
    const [input] = inputs;
    return new AgentAnswer(`'${this.target.model}'`, input ? this.countTokens(input) : 0);
  }

  protected callOf(batch: Batch): AgentCall {
    const caller = requireCaller(batch);
    const { signal } = batch;
    return { request: toAgentRequest(batch), principal: toAgentPrincipal(caller), caller, signal };
  }
}

class StreamingRunner extends ModuleRunner {
  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    const answer = this.answerTo(batch);
    for await (const value of this.thread.stream(this.callOf(batch))) yield* answer.take(value);
    yield* answer.finish();
  }
}

const OF_THREAD: ReadonlySet<string> = new Set(['MODEL_CRASHED', 'CANCELLED', 'WRONG_TASK', 'INTERNAL']);
const isOfAgent = (thrown: unknown): thrown is ServingError =>
  thrown instanceof ServingError && !OF_THREAD.has(thrown.code);

function startThread(
  target: Target,
  source: string,
  options: ModuleOptions,
  context: EngineContext,
): AgentThread {
  const agent = `'${target.model}'`;
  const data: ThreadData = {
    module: pathToFileURL(source).href,
    typescriptLoaders: /\.m?ts$/i.test(source) ? typescriptLoaders(agent, source) : [],
  };
  const { environment, secrets } = environmentOf(target, context);
  const output = new WorkerOutput({ log: context.log, clock: SYSTEM_CLOCK, fields: { agent }, secrets });
  const start = () => {
    const worker = startWorker(new URL('./agent-worker.ts', import.meta.url), {
      workerData: data,
      env: environment,
      name: `agent ${target.model}`,
      resourceLimits: { maxOldGenerationSizeMb: options.memoryMb },
      ...{ stdout: true, stderr: true },
    });
    output.read(worker.stdout, 'info');
    output.read(worker.stderr, 'warn');
    return worker;
  };
  return new AgentThread({
    ...{ agent, start, context },
    redact: (text) => output.redact(text),
    startMs: options.startSeconds * 1_000,
    timeoutMs: options.timeoutSeconds * 1_000,
    stallMs: options.stallSeconds * 1_000,
  });
}

/** What the thread sees of the environment: never the keys of the server, but what the endpoint gives it. */
const PASSED_ON = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR', 'NODE_EXTRA_CA_CERTS'];

function environmentOf({ environment = {} }: Target, context: EngineContext) {
  const passed: Record<string, string> = {};
  for (const name of PASSED_ON) {
    const value = process.env[name];
    if (value !== undefined) passed[name] = value;
  }
  const own: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) own[name] = context.resolveSecret(value);
  const secrets = Object.entries(own).flatMap(([name, value]) =>
    value === environment[name] ? [] : [value],
  );
  return { environment: { ...passed, ...own }, secrets };
}

/** What has to be registered to read it. Throws MODEL_NOT_AVAILABLE where nothing does. */
function typescriptLoaders(agent: string, source: string): readonly string[] {
  if ((process.features as { typescript?: unknown }).typescript) return [];
  // A file without "type": "module" beside it is taken for CommonJS, which is read by the second.
  const names = ['tsx/esm/api', 'tsx/cjs/api'];
  for (const from of [import.meta.url, source]) {
    try {
      const found = names.map((name) => createRequire(from).resolve(name));
      // `require` finds the CommonJS form, which cannot register hooks for modules; the other one lies beside it.
      return found.map((path) => pathToFileURL(path.replace(/\.cjs$/, '.mjs')).href);
    } catch {
      // Not there.
    }
  }
  throw new ServingError(
    'MODEL_NOT_AVAILABLE',
    `The agent ${agent} is written in TypeScript, which Node ${process.versions.node} does not read: install tsx beside duckserve (npm i tsx), or register the JavaScript it is compiled to.`,
  );
}
