// Agents of MLflow in a worker: chat and streams, several side by side in threads of the process. What an agent
// answers is read by the module engine's reader, so that agents in Python and in JavaScript say the same.
import type { StreamEvent } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { Batch, BatchAnswer, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import { AgentAnswer } from '../module/agent-answer.ts';
import { requireCaller, toAgentPrincipal, toAgentRequest } from '../module/agent-request.ts';
import { AskDesk } from '../module/ask-desk.ts';
import { estimateTokens, lengthOfInput, requireTask } from '../text-input.ts';
import type { WorkerRequest } from './worker.ts';
import { type Started, startWorker } from './worker-start.ts';

export async function openAgentRunner(target: Target, context: EngineContext): Promise<Runner> {
  const started = await startWorker(target, context);
  return started.streams
    ? new StreamingAgentRunner(target, started, context)
    : new AgentRunner(target, started, context);
}

class AgentRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly lost: Promise<ServingError>;
  protected readonly started: Started;
  readonly #target: Target;
  readonly #context: EngineContext;

  constructor(target: Target, started: Started, context: EngineContext) {
    this.#target = target;
    this.#context = context;
    this.started = started;
    this.lost = started.worker.lost;
    this.limits = {
      maxInputs: 1,
      maxTokens: 10_000_000,
      maxConcurrency: started.options.maxConcurrency,
      isAdaptive: false,
      isPadded: false,
    };
  }

  countTokens(input: Batch['inputs'][number]): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    const answer = this.answerTo(batch);
    try {
      const { header } = await this.started.worker.request('chat', this.requestOf(batch));
      answer.take(header.answer);
      return { items: [answer.item()] };
    } catch (thrown) {
      // What the agent itself did wrong says nothing of its process.
      if (batch.signal.aborted || !(thrown instanceof ServingError) || OF_PROCESS.has(thrown.code))
        throw thrown;
      return { items: [{ ok: false, error: thrown }] };
    }
  }

  close(): Promise<void> {
    return this.started.worker.close();
  }

  protected answerTo({ inputs, task }: Batch): AgentAnswer {
    requireTask(this.#target, task);
    const [input] = inputs;
    return new AgentAnswer(`'${this.#target.model}'`, input ? this.countTokens(input) : 0);
  }

  protected requestOf(batch: Batch): WorkerRequest {
    const caller = requireCaller(batch);
    const desk = new AskDesk(this.#context, caller, batch.signal);
    const header = { ...toAgentRequest(batch), principal: toAgentPrincipal(caller) } as unknown as JsonObject;
    return {
      header,
      signal: batch.signal,
      timeoutMs: this.started.options.timeoutSeconds * 1_000,
      onAsk: async (question, emit) => {
        const { stream, ...asked } = question;
        if (stream !== true) return await desk.ask(asked);
        for await (const event of desk.askStream(asked)) emit(event);
        return {};
      },
    };
  }
}

class StreamingAgentRunner extends AgentRunner {
  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    const answer = this.answerTo(batch);
    // A stream that is left early is not written any further.
    const left = new AbortController();
    const signal = AbortSignal.any([batch.signal, left.signal]);
    const events: Json[] = [];
    let wake: (() => void) | undefined;
    let isOver = false;
    const over = this.started.worker
      .request('chat_stream', {
        ...this.requestOf(batch),
        signal,
        onEvent: ({ header }) => {
          events.push(header.event ?? null);
          wake?.();
        },
      })
      .finally(() => {
        isOver = true;
        wake?.();
      });
    // Its failure is thrown below, when what came before has been passed on.
    over.catch(() => {});
    try {
      for (;;) {
        for (const event of events.splice(0)) yield* answer.take(event);
        if (isOver && events.length === 0) break;
        if (!isOver && events.length === 0) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
      await over;
      yield* answer.finish();
    } finally {
      left.abort();
    }
  }
}

const OF_PROCESS: ReadonlySet<string> = new Set(['MODEL_CRASHED', 'CANCELLED', 'WRONG_TASK', 'INTERNAL']);
