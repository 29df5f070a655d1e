// The openai engine opened against one stub provider, for its test files.
import type { ChatInput, Input, Parameters, Task } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { Batch, BatchAnswer, EngineContext, Runner } from '#engines/engine.ts';
import { openaiEngine } from '#engines/openai/openai.ts';
import { type StubAnswer, type StubProvider, startStubProvider } from '../stub/provider.ts';

/** What `{{env/KEY}}` resolves to. */
export const KEY = 'sk-test-1234567890abcdef';

export const context: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '',
  resolveSecret: (reference) => (reference === '{{env/KEY}}' ? KEY : reference),
  allowDownload: () => false,
  notify: () => {},
};

export interface OpenaiStub {
  readonly provider: StubProvider;
  target(task: ExternalModel['task'], change?: Partial<ExternalModel>): Target;
  /** Closed by `reset`. */
  open(task: ExternalModel['task'], change?: Partial<ExternalModel>): Promise<Runner>;
  /** One chat against an upstream that answers `answer`. */
  chatAgainst(answer: StubAnswer): Promise<BatchAnswer>;
  /** Back to good behaviour and an empty ledger. */
  reset(): Promise<void>;
  close(): Promise<void>;
}

export async function startOpenaiStub(): Promise<OpenaiStub> {
  const provider = await startStubProvider();
  const opened: Runner[] = [];
  const target: OpenaiStub['target'] = (task, change = {}) => ({
    endpoint: 'e',
    servedEntity: 's',
    engine: 'openai',
    task,
    fingerprint: 'f',
    model: 'stub-model',
    externalModel: {
      name: 'stub-model',
      provider: 'openai',
      task,
      baseUrl: provider.openaiUrl,
      apiKey: '{{env/KEY}}',
      ...change,
    },
  });
  const open: OpenaiStub['open'] = async (task, change) => {
    const runner = await openaiEngine.open(target(task, change), context);
    opened.push(runner);
    return runner;
  };
  return {
    provider,
    target,
    open,
    chatAgainst: async (answer) => {
      provider.behave({ answer: () => answer });
      const runner = await open('llm/v1/chat');
      return runner.invoke(chatOf('x')).finally(() => provider.behave({ answer: () => undefined }));
    },
    reset: async () => {
      await Promise.all(opened.splice(0).map((runner) => runner.close()));
      provider.behave({ answer: () => undefined, latencyMs: 0, eventGapMs: 0, rateCut: 0, rateMalformed: 0 });
      provider.resetLedger();
    },
    close: () => provider.close(),
  };
}

export const user = (content: string): ChatInput => ({ messages: [{ role: 'user', content }] });

export const batch = (
  task: Task,
  inputs: readonly Input[],
  parameters: Parameters = {},
  signal: AbortSignal = new AbortController().signal,
): Batch => ({ task, inputs, parameters, signal });

export const chatOf = (text: string, parameters?: Parameters, signal?: AbortSignal): Batch =>
  batch('llm/v1/chat', [user(text)], parameters, signal);

/** Body of a chat answer. */
export const choice = (message: object, finish_reason: string | null = 'stop') => ({
  choices: [{ message, finish_reason }],
});
